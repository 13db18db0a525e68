"""Drops documents with placeholder text, curly brackets or few sentences, as C4 does.

Raffel et al. 2020 (arXiv:1910.10683), 2.2; the thresholds are theirs. After `c4_lines`,
whose docstring says more, the two decide as datatrove's C4QualityFilter. Code has curly
brackets, so it must not come this way.
"""

from llm.document import Document, Tag
from llm.text.word_breaks import sentences

TINY = {}


def make(
    *, least_sentences: int = 5, lorem_ipsum: bool = True, curly_bracket: bool = True
) -> Tag:
    """Makes the stage.

    Args:
      least_sentences: sentences of all lines.
      lorem_ipsum, curly_bracket: drops a document with either of them.
    """

    def decide(scores: dict[str, float]) -> str:
        if lorem_ipsum and scores["lorem_ipsum"]:
            return "lorem ipsum"
        if curly_bracket and scores["curly_brackets"]:
            return "curly bracket"
        if scores["sentences"] < least_sentences:
            return f"fewer than {least_sentences} sentences"
        return ""

    return Tag(score, decide, reads=())


def score(document: Document) -> dict[str, float]:
    """How many sentences, and lines with placeholder text or a curly bracket."""
    lines = document.text.splitlines()
    return {
        "sentences": float(sum(map(sentences, lines))),
        "lorem_ipsum": float(sum("lorem ipsum" in line.lower() for line in lines)),
        "curly_brackets": float(sum("{" in line for line in lines)),
    }

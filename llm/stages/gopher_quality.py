"""Drops texts that are no prose, by the quality rules of Gopher.

Rae et al. 2021, Scaling Language Models (arXiv:2112.11446), A.1.1; the thresholds are
theirs. Scores equal those of datatrove's GopherQualityFilter on the same words, which a
test shows; words are those of `llm/text/word_breaks.py`. The rules were made for
English. A text of another language needs the stop words of that language, where
`llm/text/stop_words.py` has a list; the rule is skipped where it has none. So are those
about the lengths of words and about letters where words are not told by spaces, or not
known. A threshold of 0 switches its rule off.
"""

from collections import Counter
from collections.abc import Collection

from llm.document import Document, Tag
from llm.text.stop_words import rules
from llm.text.word_breaks import PUNCTUATION, words

TINY = {"least_alphabetic": 0.3, "least_mean_length": 1.0, "least_stop_words": 0}

# Scores of rules that are for texts with spaced words alone.
_SPACED = ("mean_length", "alphabetic")


def make(
    *,
    least_words: int = 50,
    most_words: int = 100_000,
    least_mean_length: float = 3.0,
    most_mean_length: float = 10.0,
    most_hashes: float = 0.1,
    most_ellipses: float = 0.1,
    most_bullet_lines: float = 0.9,
    most_ellipsis_lines: float = 0.3,
    least_alphabetic: float = 0.8,
    least_stop_words: int = 2,
    stop_words: tuple[str, ...] = (),
) -> Tag:
    """Makes the stage.

    Args:
      least_words, most_words: words that are not punctuation alone.
      least_mean_length, most_mean_length: characters of these, on average.
      most_hashes, most_ellipses: hash signs, and ellipses, for each word.
      most_bullet_lines: share of the lines that begin with a bullet or a hyphen.
      most_ellipsis_lines: share of the lines that end with an ellipsis.
      least_alphabetic: share of the words that have a letter.
      least_stop_words: how many different stop words a text must have.
      stop_words: what counts as one, in any text; () takes those of its language.
    """
    least = (
        ("words", least_words, "fewer than {} words"),
        ("mean_length", least_mean_length, "words of fewer than {} characters"),
        ("alphabetic", least_alphabetic, "less than {:.0%} of words with a letter"),
        ("stop_words", least_stop_words, "fewer than {} stop words"),
    )
    most = (
        ("words", most_words, "more than {} words"),
        ("mean_length", most_mean_length, "words of more than {} characters"),
        ("hashes", most_hashes, "more than {} hash signs a word"),
        ("ellipses", most_ellipses, "more than {} ellipses a word"),
        ("bullet_lines", most_bullet_lines, "more than {:.0%} of lines with a bullet"),
        ("ellipsis_lines", most_ellipsis_lines, "more than {:.0%} of lines cut short"),
    )
    wanted = frozenset(stop_words)

    def decide(scores: dict[str, float]) -> str:
        skipped = () if scores["spaced"] else _SPACED
        if not scores["listed"]:
            skipped = (*skipped, "stop_words")
        for name, threshold, reason in least:
            if threshold and scores[name] < threshold and name not in skipped:
                return reason.format(threshold)
        for name, threshold, reason in most:
            if threshold and scores[name] > threshold and name not in skipped:
                return reason.format(threshold)
        return ""

    return Tag(lambda document: score(document, wanted), decide, reads=("stop_words",))


def score(document: Document, stop_words: Collection[str]) -> dict[str, float]:
    """The measures that the thresholds of `make` are compared with.

    `listed` and `spaced` are 1 where the rules about stop words, and about the lengths
    of words and about letters, are for this text.
    """
    text = document.text
    found = Counter(words(text))
    count = found.total() or 1
    symbols = [word for word in found if _is_punctuation(word)]
    plain = found.total() - sum(found[word] for word in symbols)
    length = sum(len(word) * n for word, n in found.items())
    length -= sum(len(word) * found[word] for word in symbols)
    alphabetic = sum(n for word, n in found.items() if _has_letter(word))
    lines = text.splitlines()
    bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines)
    cut = sum(line.rstrip().endswith(("...", "…")) for line in lines)
    under = rules(str(document.meta.get("language", "")), found, text)
    known = len(found.keys() & stop_words) if stop_words else under.stop_words
    return {
        "words": float(plain),
        "mean_length": length / (plain or 1),
        "hashes": text.count("#") / count,
        "ellipses": (text.count("...") + text.count("…")) / count,
        "bullet_lines": bullets / (len(lines) or 1),
        "ellipsis_lines": cut / (len(lines) or 1),
        "alphabetic": alphabetic / count,
        "stop_words": float(known or 0),
        "listed": float(known is not None),
        "spaced": float(under.spaced),
    }


def _has_letter(word: str) -> bool:
    return word.isalpha() or any(map(str.isalpha, word))


def _is_punctuation(word: str) -> bool:
    return word[0] in PUNCTUATION and not word.strip(PUNCTUATION)

"""Drops documents that hold items of an examination: runs of thirteen words in common.

What a model is asked later it must not have read: see `llm/corpus/contamination.py`.
Which items the corpus held, and where, says `benchmarks/contamination.py` of a run that
was made without this stage.
"""

import pathlib

from llm.corpus import contamination
from llm.document import Document, Tag
from llm.knobs import Count

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.jsonl"))}


def make(*, path: str = "", words: int = contamination.WORDS, least: Count = 1) -> Tag:
    """Makes the stage.

    Args:
      path: a file of items (.jsonl, .txt, .csv, .tsv), or a folder of them.
      words: words of a run.
      least: runs in common from which a document is dropped.

    Raises:
      InputError: no items.
    """
    index = contamination.Index(contamination.items(path), words)

    def score(document: Document) -> dict[str, float]:
        found = index.found(document.text)
        return {item: float(runs) for item, runs in found.items()}

    def decide(scores: dict[str, float]) -> str:
        held = sum(scores.values()) >= least
        return "holds items of an examination" if held else ""

    about = (("items", len(index.items)), ("too short", index.short))
    return Tag(score, decide, reads=("path", "words"), about=about)

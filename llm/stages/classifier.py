"""Drops documents by a classifier of texts: quality that is too low, harm too likely.

The classifier is yours, a folder that `configs/train_filter.py` wrote, with labels of
yours. Documents are kept whose `label` has a probability of at least `least` (quality:
`label=good,least=0.5`), and dropped from `most` on (harm: `label=harmful,least=0,
most=0.5`); 0 switches either off. Which quality is good is a choice of the texts that
it learned from (Gururangan et al. 2022, arXiv:2201.10474): look at what is dropped, and
at `benchmarks/bias.py`.
"""

import pathlib

from llm import registry
from llm.document import Document, Tag
from llm.errors import InputError
from llm.knobs import Share
from llm.text import linear_classifier

TINY = {
    "model_path": str(pathlib.Path(__file__).with_suffix(".example")),
    "label": "code",
}


def make(
    *, model_path: str = "", label: str = "", least: Share = 0.5, most: Share = 0.0
) -> Tag:
    """Makes the stage.

    Args:
      model_path: the folder of a classifier.
      label: the label of it that is asked for.
      least: a document of a smaller probability is dropped; 0 drops none.
      most: so is one of this probability or a larger one; 0 drops none.

    Raises:
      InputError: no classifier, no such label, or thresholds that keep nothing.
    """
    if not model_path:
        raise InputError(
            got="no classifier for the stage 'classifier'",
            want="data.stage.classifier.model_path, a folder that "
            "configs/train_filter.py wrote",
        )
    if most and least >= most:
        raise InputError(
            got=f"data.stage.classifier.least {least} and most {most}",
            want="least below most; 0 switches either off",
        )
    found = linear_classifier.load(model_path)
    if label not in found.labels:
        raise InputError(
            got=f"data.stage.classifier.label {label!r}",
            want=f"one of {', '.join(found.labels)}"
            + registry.hint(label, found.labels),
        )
    place = found.labels.index(label)

    def score(document: Document) -> dict[str, float]:
        return {"probability": float(found.score([document.text])[0, place])}

    def decide(scores: dict[str, float]) -> str:
        if scores["probability"] < least:
            return f"{label} less likely than {least}"
        if most and scores["probability"] >= most:
            return f"{label} with a probability of {most} or more"
        return ""

    return Tag(score, decide, reads=("model_path", "label"))

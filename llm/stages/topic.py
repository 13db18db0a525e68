"""Writes the topic of every document beside it: `topic`, to mix or to count by.

Topics are those of a folder that `configs/train_topics.py` wrote: groups of the vectors
that a model of yours gives to texts, learned by a linear classifier of words, so that a
corpus of any size can be told apart without the model. Of a classifier that
`configs/train_filter.py` wrote, its most probable label is taken. Behind it,
`data.mixture.by=topic` gives topics their shares of a training.
"""

import dataclasses
import pathlib

from llm.document import Document, Map
from llm.errors import InputError
from llm.text import linear_classifier

TINY = {"model_path": str(pathlib.Path(__file__).with_name("classifier.example"))}


def make(*, model_path: str = "") -> Map:
    """Makes the stage.

    Args:
      model_path: the folder of a classifier.

    Raises:
      InputError: no such folder, or a broken one.
    """
    if not model_path:
        raise InputError(
            got="no classifier for the stage 'topic'",
            want="data.stage.topic.model_path, the folder topics/ that "
            "configs/train_topics.py wrote",
        )
    found = linear_classifier.load(model_path)

    def apply(document: Document) -> list[Document]:
        label = found.labels[int(found.score([document.text])[0].argmax())]
        meta = {**document.meta, "topic": label}
        return [dataclasses.replace(document, meta=meta)]

    return Map(apply)

"""Gives every document a label, for the objective `classify`: its group or its kind.

The group is the top-level package of the standard library, or the top-level folder of
one's own texts, so a folder a class is a labelled collection. A document becomes a
group of its own, as every class must occur in every split; what it resembles still goes
with it.
"""

import dataclasses

from llm.document import Document, Map
from llm.errors import InputError

TINY = {"field": "kind"}
_FIELDS = ("group", "kind")


def make(*, field: str = "group", names: tuple[str, ...] = ()) -> Map:
    """Makes the stage.

    Args:
      field: what becomes the label: 'group' or 'kind'.
      names: labels to keep, documents with others are dropped; () keeps all.
    """
    if field not in _FIELDS:
        raise InputError(
            got=f"data.stage.label.field {field!r}", want=" or ".join(_FIELDS)
        )

    def apply(document: Document) -> list[Document]:
        label = getattr(document, field)
        if names and label not in names:
            return []
        meta = {**document.meta, "label": label}
        return [dataclasses.replace(document, group=document.id, meta=meta)]

    return Map(apply)

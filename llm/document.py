"""What flows through the data pipeline: documents, and the three kinds of stage.

A stage says what to do with documents and nothing about where it runs: the local runner
(`data/runner.py`) and any other execute these three kinds and know nothing else.

`Map` turns a document into documents (normalise, split, redact). `Tag` scores a
document; whether a score drops it is a separate pure function, `decide`, so that a
changed threshold recomputes nothing. `Group` brings documents together by key (exact or
near duplicates) and decides per document id.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


@dataclasses.dataclass(frozen=True)
class Document:
    """A text with its origin.

    Attributes:
      id: unique and stable within a source, e.g. `email/header.py`.
      text: the text itself.
      source: the plug-in that read it, e.g. `stdlib`.
      group: the unit that a split may not cut, e.g. the top-level package.
      kind: what the text is, e.g. `code` or `prose`.
      raw_bytes: UTF-8 bytes of the text as it was read, before any stage changed it;
        bits per byte are counted against these.
      meta: whatever else is known: licence, language, path. JSON values only.
    """

    id: str
    text: str
    source: str
    group: str
    kind: str
    raw_bytes: int
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)


class Map(NamedTuple):
    """Replaces a document by any number of documents.

    `apply` returns an empty list to drop the document.
    """

    apply: Callable[[Document], list[Document]]


class Tag(NamedTuple):
    """Scores a document, then decides on the scores alone.

    `decide` returns an empty string to keep the document, else the reason for its drop.
    """

    score: Callable[[Document], dict[str, float]]
    decide: Callable[[dict[str, float]], str]


class Group(NamedTuple):
    """Brings documents together by key and decides what to drop.

    `key` gives the (key, value) pairs of one document; `reduce` sees all the values of
    one key, in document order, and returns {document id: (reason, kept id)} for those to
    drop: the kept id is the document that stands for it, so that a split can keep near
    duplicates on one side.
    """

    key: Callable[[Document], list[tuple[Any, Any]]]
    reduce: Callable[[Any, Sequence[Any]], dict[str, tuple[str, str]]]


Stage = Map | Tag | Group

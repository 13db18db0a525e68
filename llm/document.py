"""What flows through the data pipeline: documents, and the three kinds of stage.

A stage says what to do with documents and nothing about where it runs: the local runner
(`data/runner.py`) and any other execute these three kinds and know nothing else.

`Map` turns a document into documents (normalise, split, redact). `Tag` scores a
document; whether a score drops it is a separate pure function, `decide`, so that a
changed threshold recomputes nothing. `Group` brings documents together by key (exact or
near duplicates) and says which documents match an earlier one. A matching document is
dropped, or kept and only linked: a split keeps linked documents on one side.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
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


class Match(NamedTuple):
    """The document `id` matches the document `of`, which comes before it.

    With a reason it is dropped and `of` stands for it; with '' both stay, and a split
    keeps them on one side.
    """

    id: str
    of: str
    reason: str


class Group(NamedTuple):
    """Brings documents together by key and finds those that match.

    `key` gives the (key, value) pairs of one document; `reduce` sees all the values of
    one key, in document order. The first document of a set of matches is never dropped.
    """

    key: Callable[[Document], list[tuple[Any, Any]]]
    reduce: Callable[[Any, Sequence[Any]], list[Match]]


Stage = Map | Tag | Group

# What a file of sources/ makes: called with `skip(reason, id)`, which it calls for what
# it leaves out, it yields its documents, always in the same order.
Source = Callable[[Callable[[str, str], None]], Iterable[Document]]

"""What flows through the data pipeline: documents, and the three kinds of stage.

A stage says what to do with documents and nothing about where it runs: the local runner
(`corpus/runner.py`) and any other execute these three kinds and know nothing else.

`Map` turns a document into documents (normalise, split, redact). `Tag` scores a
document; whether a score drops it is a separate pure function, `decide`, so that a
changed threshold recomputes nothing. `Group` compares documents, or parts of them, and
says which match an earlier one. What matches is taken out, or kept and only linked: a
split keeps linked documents on one side.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np


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
    `reads` names the knobs of the stage that `score` depends on, None says all: scores
    are kept, and found again as long as these are what they were. `about` is what the
    stage says of itself, for the data card: names and JSON values.
    """

    score: Callable[[Document], dict[str, float]]
    decide: Callable[[dict[str, float]], str]
    reads: tuple[str, ...] | None = None
    about: tuple[tuple[str, Any], ...] = ()


class Match(NamedTuple):
    """A row matches one that comes before it; both are places in a bucket.

    With a reason its part is taken out; with '' both stay, and a split keeps the two
    documents on one side.
    """

    later: int
    earlier: int
    reason: str


class Group(NamedTuple):
    """Brings together what is alike, and finds what matches.

    A document is described by rows of bytes, one for each part that is compared: itself
    (a digest, a signature), or its paragraphs. Rows with a key in common meet in a
    bucket, in document order, and `reduce` says which of them match.

    Attributes:
      size: bytes of a row.
      rows: uint8 [parts, size] of a document; no rows are never compared.
      keys: uint64 [parts, keys] of such rows. Two keys that are equal by chance bring
        rows together that `reduce` must tell apart.
      reduce: the matches among uint8 [rows, size]. The first row of those that match is
        never the later one.
      cut: the document without these parts, None if nothing is left of it; None drops
        the document of which any part is taken out.
    """

    size: int
    rows: Callable[[Document], np.ndarray]
    keys: Callable[[np.ndarray], np.ndarray]
    reduce: Callable[[np.ndarray], list[Match]]
    cut: Callable[[Document, Sequence[int]], Document | None] | None = None


Stage = Map | Tag | Group

# With what a reason for `skip` begins that drops nothing, such as a field not read.
NOTE = "note: "

# What a file of sources/ makes: called with `skip(reason, id)`, which it calls for what
# it leaves out, it yields its documents, always in the same order.
Source = Callable[[Callable[[str, str], None]], Iterable[Document]]

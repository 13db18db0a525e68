"""Which tokens stand in which row: a plan, not a stream, so nothing is lost on resume.

Two ways, by what the documents are:

`Line`, texts to learn to continue: in each epoch the documents are put in a new order
and laid end to end, and the line is cut in rows of `seq_len + 1` tokens that overlap by
one, since the last target of a row is the first input of the next: every token but the
very first is a target exactly once. Then the rows are put in a new order too, so that a
batch holds rows of many documents. The last row is short.

`Boxes`, records that only make sense whole, such as a question with its answer: they
are put in rows once, the longest first, each in the first row with room, and only the
order of the rows is new in each epoch. What fits in no row is left out, and counted.

Any row of any epoch can be asked for. The orders come from raw bits of a counter-based
generator (Philox), which numpy promises to keep, unlike its `permutation`; they cost
16 bytes a document and 8 a row while an epoch lasts.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Which order bits are for; the generators of rows use the counters below these.
_DOCUMENTS, _ROWS = 1, 2


class Span(NamedTuple):
    """`length` tokens of a document from its token `start` on."""

    document: int
    start: int
    length: int


@dataclasses.dataclass(frozen=True)
class Line:
    """Documents end to end.

    Attributes:
      lengths: tokens of each document.
      seq_len: targets of a row.
    """

    lengths: np.ndarray
    seq_len: int

    @property
    def rows_per_epoch(self) -> int:
        """Rows that hold every token but the first as a target."""
        return max(-(-(int(np.sum(self.lengths)) - 1) // self.seq_len), 0)

    @property
    def left_out(self) -> int:
        """Documents that are in no row."""
        return 0

    def epoch(self, seed: int, epoch: int) -> "Lined":
        """The rows of an epoch."""
        order = _order(len(self.lengths), seed, epoch, _DOCUMENTS)
        rows = _order(self.rows_per_epoch, seed, epoch, _ROWS)
        return Lined(order, np.cumsum(self.lengths[order]), rows, self.seq_len)

    def unshuffled(self) -> "Lined":
        """Rows in the order of the documents, for validation."""
        rows, order = np.arange(self.rows_per_epoch), np.arange(len(self.lengths))
        return Lined(order, np.cumsum(self.lengths), rows, self.seq_len)


class Lined(NamedTuple):
    """The rows of one epoch of a line.

    Attributes:
      order: int64 [documents]: documents in the order they are laid end to end.
      ends: int64 [documents]: where each of them ends in the line.
      rows: int64 [rows]: the place in the line, counted in rows, of each row.
      seq_len: targets of a row.
    """

    order: np.ndarray
    ends: np.ndarray
    rows: np.ndarray
    seq_len: int

    def spans(self, row: int) -> list[Span]:
        """What stands in a row: `seq_len + 1` tokens, fewer at the end of the line."""
        begin = int(self.rows[row]) * self.seq_len
        end = begin + self.seq_len + 1
        found = []
        place = int(np.searchsorted(self.ends, begin, side="right"))
        at = int(self.ends[place - 1]) if place else 0
        while at < end and place < len(self.order):
            stop = int(self.ends[place])
            first = max(begin, at)
            length = min(end, stop) - first
            if length:
                found.append(Span(int(self.order[place]), first - at, length))
            at = stop
            place += 1
        return found


@dataclasses.dataclass(frozen=True)
class Boxes:
    """Documents put whole into rows.

    Attributes:
      lengths: tokens of each document.
      documents: those of all rows, one row after another.
      starts: int64 [rows + 1]: where each row begins in `documents`.
    """

    lengths: np.ndarray
    documents: np.ndarray
    starts: np.ndarray

    @property
    def rows_per_epoch(self) -> int:
        """Rows."""
        return len(self.starts) - 1

    @property
    def left_out(self) -> int:
        """Documents too long for any row."""
        return len(self.lengths) - len(self.documents)

    def epoch(self, seed: int, epoch: int) -> "Boxed":
        """The rows of an epoch."""
        return Boxed(self, _order(self.rows_per_epoch, seed, epoch, _ROWS))

    def unshuffled(self) -> "Boxed":
        """Rows in their order, for validation."""
        return Boxed(self, np.arange(self.rows_per_epoch))


class Boxed(NamedTuple):
    """The rows of one epoch of boxes."""

    boxes: Boxes
    rows: np.ndarray

    def spans(self, row: int) -> list[Span]:
        """The documents of a row, each whole."""
        start, stop = self.boxes.starts[self.rows[row] :][:2]
        lengths = self.boxes.lengths
        return [
            Span(int(d), 0, int(lengths[d])) for d in self.boxes.documents[start:stop]
        ]


def boxes(sizes_DK: np.ndarray, room_K: Sequence[int], *, alone: bool = False) -> Boxes:
    """Puts documents of several sizes each, all of which count, into rows.

    Args:
      sizes_DK: such as the tokens of a source and of a target.
      room_K: of a row.
      alone: whether each has a row of its own; rows are then in the order of documents.
    """
    room_K = np.asarray(room_K)
    if alone:
        documents = np.flatnonzero((sizes_DK <= room_K).all(axis=1))
        return Boxes(sizes_DK.sum(axis=1), documents, np.arange(len(documents) + 1))
    order = np.argsort(-sizes_DK.sum(axis=1), kind="stable")
    left_RK = np.zeros((0, len(room_K)), np.int64)
    rows: list[list[int]] = []
    first = 0  # rows before it are full for the shortest document
    least_K = sizes_DK.min(axis=0, initial=np.iinfo(np.int64).max)
    for document in order:
        size_K = sizes_DK[document]
        if (size_K > room_K).any():
            continue
        fits = np.flatnonzero((left_RK[first : len(rows)] >= size_K).all(axis=1))
        if len(fits):
            row = first + int(fits[0])
        else:
            row = len(rows)
            rows.append([])
            if row == len(left_RK):
                more = np.tile(room_K, (max(row, 64), 1))
                left_RK = np.concatenate([left_RK, more])
        rows[row].append(int(document))
        left_RK[row] -= size_K
        while first < len(rows) and (left_RK[first] < least_K).any():
            first += 1
    counts = [len(row) for row in rows]
    documents = np.array([d for row in rows for d in row], np.int64)
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return Boxes(sizes_DK.sum(axis=1), documents, starts)


def _order(count: int, seed: int, epoch: int, what: int) -> np.ndarray:
    key = (seed & 0xFFFFFFFFFFFFFFFF) | epoch << 64
    bits = np.random.Philox(key=key, counter=what << 192).random_raw(count)
    return np.argsort(bits, kind="stable")

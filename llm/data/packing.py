"""Which tokens stand in which row: a plan, not a stream, so nothing is lost on resume.

In each epoch the documents are put in a new order and laid end to end, and the line is
cut in rows of `seq_len + 1` tokens that overlap by one, since the last target of a row
is the first input of the next: every token but the very first is a target exactly once.
Then the rows are put in a new order too, so that a batch holds rows of many documents.
The last row is short.

Any row of any epoch can be asked for: its place in the line follows from its number,
and the documents there from a binary search. The orders come from raw bits of a
counter-based generator (Philox), which numpy promises to keep, unlike its
`permutation`; they cost 16 bytes a document and 8 a row while an epoch lasts.
"""

from typing import NamedTuple

import numpy as np

# Which order bits are for; the generators of rows use the counters below these.
_DOCUMENTS, _ROWS = 1, 2


class Span(NamedTuple):
    """`length` tokens of a document from its token `start` on."""

    document: int
    start: int
    length: int


class Plan(NamedTuple):
    """The rows of one epoch.

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


def rows_per_epoch(lengths: np.ndarray, seq_len: int) -> int:
    """Rows that hold every token but the first as a target."""
    return max(-(-(int(np.sum(lengths)) - 1) // seq_len), 0)


def plan(lengths: np.ndarray, seq_len: int, seed: int, epoch: int) -> Plan:
    """The rows of an epoch over documents of `lengths` tokens."""
    order = _order(len(lengths), seed, epoch, _DOCUMENTS)
    rows = _order(rows_per_epoch(lengths, seq_len), seed, epoch, _ROWS)
    return Plan(order, np.cumsum(lengths[order]), rows, seq_len)


def unshuffled(lengths: np.ndarray, seq_len: int) -> Plan:
    """Rows in the order of the documents, for validation."""
    rows = np.arange(rows_per_epoch(lengths, seq_len))
    return Plan(np.arange(len(lengths)), np.cumsum(lengths), rows, seq_len)


def spans(plan: Plan, row: int) -> list[Span]:
    """What stands in a row: `seq_len + 1` tokens, fewer at the end of the line."""
    begin = int(plan.rows[row]) * plan.seq_len
    end = begin + plan.seq_len + 1
    found = []
    place = int(np.searchsorted(plan.ends, begin, side="right"))
    at = int(plan.ends[place - 1]) if place else 0
    while at < end and place < len(plan.order):
        stop = int(plan.ends[place])
        first = max(begin, at)
        length = min(end, stop) - first
        if length:
            found.append(Span(int(plan.order[place]), first - at, length))
        at = stop
        place += 1
    return found


def _order(count: int, seed: int, epoch: int, what: int) -> np.ndarray:
    key = (seed & 0xFFFFFFFFFFFFFFFF) | epoch << 64
    bits = np.random.Philox(key=key, counter=what << 192).random_raw(count)
    return np.argsort(bits, kind="stable")

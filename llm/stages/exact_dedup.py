"""Drops exact copies; the first of them, in document order, stays.

Copies are found by a 128-bit hash of the text after the stages before this one, so that
two texts that differ in line ends alone are copies once they are normalised.
"""

from llm.document import Document, Group
from llm.text import hashing

TINY = {}

_REASON = "exact copy of an earlier document"


def make() -> Group:
    """Makes the stage."""

    def rows(document: Document):
        return hashing.rows([document.text])

    def reduce(rows):
        return hashing.same(rows, _REASON)

    return Group(hashing.SIZE, rows, hashing.keys, reduce)

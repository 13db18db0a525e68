"""Drops exact copies; the first of them, in document order, stays.

Copies are found by a 128-bit hash of the text after the stages before this one, so that
two texts that differ in line ends alone are copies once they are normalised.
"""

import hashlib
from collections.abc import Sequence

from llm.document import Document, Group, Match

TINY = {}


def make() -> Group:
    """Makes the stage."""
    return Group(_key, _reduce)


def _key(document: Document) -> list[tuple[bytes, str]]:
    text = document.text.encode("utf-8")
    return [(hashlib.blake2b(text, digest_size=16).digest(), document.id)]


def _reduce(key: bytes, ids: Sequence[str]) -> list[Match]:
    return [Match(id, ids[0], "exact copy of an earlier document") for id in ids[1:]]

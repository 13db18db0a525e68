"""Texts that are equal, found by a digest of 16 bytes: rows of a `Group`."""

import hashlib
from collections.abc import Iterable

import numpy as np

from llm.document import Match

SIZE = 16


def rows(texts: Iterable[str]) -> np.ndarray:
    """The digests: uint8 [texts, 16]."""
    found = b"".join(
        hashlib.blake2b(
            text.encode("utf-8", "surrogatepass"), digest_size=SIZE
        ).digest()
        for text in texts
    )
    return np.frombuffer(found, np.uint8).reshape(-1, SIZE)


def keys(rows: np.ndarray) -> np.ndarray:
    """The first half of each digest: uint64 [texts, 1]."""
    return np.ascontiguousarray(rows).view("<u8")[:, :1]


def same(rows: np.ndarray, reason: str) -> list[Match]:
    """The matches among rows of which equal ones match: all but the first of each."""
    whole = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").reshape(-1)
    _, first, which = np.unique(whole, return_index=True, return_inverse=True)
    first = first[which]
    return [
        Match(int(place), int(first[place]), reason)
        for place in np.flatnonzero(first != np.arange(len(rows)))
    ]


def of_id(id: str) -> int:
    """The id of a document in 64 bits, of which 10 million share one by 3e-6."""
    return int.from_bytes(
        hashlib.blake2b(id.encode(), digest_size=8).digest(), "little"
    )

"""Hashes that are the same in every process: of texts, words and ids.

Texts that are equal are found by a digest of 16 bytes: such are the rows of a `Group`.
"""

import hashlib
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from llm.document import Document, Match

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


def of_document(document: Document) -> int:
    """A document's id and text in 128 bits."""
    content = f"{document.id}\n{document.text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=16).digest(), "little")


def words(found: Sequence[str]) -> np.ndarray:
    """A code of each word: uint64 [words]."""
    codes = {word: _code(word) for word in set(found)}
    return np.fromiter(map(codes.__getitem__, found), np.uint64, len(found))


def mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every input bit moves every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _code(word: str) -> int:
    # Python's own hash of a string changes from process to process.
    content = word.encode("utf-8", errors="surrogatepass")
    return zlib.crc32(content) << 32 | zlib.adler32(content)

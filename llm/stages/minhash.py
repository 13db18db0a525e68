"""Drops near duplicates, and links texts that are merely alike, by MinHash and LSH.

A document is the set of its shingles: runs of five words, in lower case and without
punctuation. Words are those of `llm/text/word_breaks.py`: where a script has no spaces
(Chinese, Japanese, Thai), each letter is one, or two copies of which a word was changed
would be as different as any two texts. The share of equal entries in two MinHash
signatures estimates the Jaccard similarity of the two sets (Broder 1997). Cut in
`bands` of `rows` entries, signatures that agree on any whole band become candidates,
which happens to a pair of similarity s with probability 1 - (1 - s^rows)^bands
(Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4): with 42 bands of 3 rows,
0.29 at s = 0.2, 0.996 at 0.5, 1 - 1e-13 at 0.8. Each candidate is then verified by its
signatures.

At `threshold` and above, the later document is dropped. Between `link_threshold` and
`threshold` both stay but must end on one side of a split: a model that has seen a text
should not be examined on a variant of it.

Everything is a pure function of the texts: hashes are fixed, ties go to document order.
The signatures cost about 0.15 s per MB of text on one core.
"""

import numpy as np

from llm.document import Document, Group, Match
from llm.knobs import Positive, ShareAbove0
from llm.text import hashing
from llm.text.word_breaks import words as words_of

TINY = {"bands": 8, "rows": 3}

_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_BLOCK = 4096  # shingles hashed at once: their products stay in the cache


def make(
    *,
    threshold: ShareAbove0 = 0.8,
    link_threshold: ShareAbove0 = 0.5,
    bands: Positive = 42,
    rows: Positive = 3,
    words: Positive = 5,
) -> Group:
    """Makes the stage.

    Args:
      threshold: estimated Jaccard similarity from which the later document is dropped.
      link_threshold: the same from which two documents stay in one split.
      bands: bands of a signature; more find more of the less similar pairs.
      rows: entries of a band; more make fewer candidates.
      words: words of a shingle.
    """
    entries = bands * rows
    reason = f"near duplicate: estimated Jaccard similarity {threshold:g} or more"

    def describe(document: Document) -> np.ndarray:
        hashed = shingles(document.text, words)
        if not len(hashed):
            return np.zeros((0, 4 * entries), np.uint8)
        return signature(hashed, entries).astype("<u4").view(np.uint8)[None]

    def keys(described: np.ndarray) -> np.ndarray:
        signed = np.ascontiguousarray(described).view("<u4").reshape(-1, bands, rows)
        # The band is part of its key, so that only the same bands meet.
        mixed = np.broadcast_to(np.arange(bands, dtype=np.uint64), signed.shape[:2])
        for row in range(rows):
            mixed = hashing.mixed(mixed * _MIX + signed[:, :, row])
        return mixed

    def reduce(described: np.ndarray) -> list[Match]:
        signed = np.ascontiguousarray(described).view("<u4")
        matches = []
        kept = np.empty_like(signed)
        places = []
        for place, entries in enumerate(signed):
            alike = (kept[: len(places)] == entries).mean(axis=1)
            copies = np.flatnonzero(alike >= threshold)
            if copies.size:
                # Not compared any more: a bucket of n copies costs n, not n^2.
                matches.append(Match(place, places[copies[0]], reason))
                continue
            for other in np.flatnonzero(alike >= link_threshold):
                matches.append(Match(place, places[other], ""))
            kept[len(places)] = entries
            places.append(place)
        return matches

    return Group(4 * entries, describe, keys, reduce)


def shingles(text: str, words: int) -> np.ndarray:
    """Hashes (uint64, distinct, sorted) of the runs of `words` words of a text.

    A text of fewer words is one shingle; one without any word has none.
    """
    found = [w for w in words_of(text.lower()) if w[0].isalnum() or w[0] == "_"]
    word = hashing.words(found)
    count = min(words, len(found))
    if not count:
        return word
    hashed = np.zeros(len(found) - count + 1, np.uint64)
    for i in range(count):
        hashed = hashing.mixed(hashed * _MIX + word[i : i + len(hashed)])
    return np.unique(hashed)


def signature(hashed: np.ndarray, entries: int) -> np.ndarray:
    """MinHash signature (uint32 [entries]) of a set of 64-bit hashes."""
    # Multiply-add-shift by odd constants (Dietzfelbinger): mod 2^64, high half.
    steps = np.arange(1, 2 * entries + 1, dtype=np.uint64)
    constants = hashing.mixed(steps * _MIX)
    factor, offset = constants[:entries, None] | np.uint64(1), constants[entries:, None]
    least = np.full(entries, np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(hashed), _BLOCK):
        block = hashed[start : start + _BLOCK]
        np.minimum(least, (factor * block + offset).min(axis=1), out=least)
    return (least >> np.uint64(32)).astype(np.uint32)

"""Runs of words (n-grams) of a text: which occur again, and how often.

Runs are compared by a polynomial of their characters modulo 2^64, so that all runs of a
length cost a few operations on arrays: the value of characters i to j is the difference
of two running sums, shifted by the inverse power of the factor.

    >>> runs = Runs(("a", "b", "a", "b"), " ")
    >>> codes, characters = runs.of(2)
    >>> repeated(codes).tolist(), most_frequent(codes)
    ([0, 2], (0, 2))
"""

import functools

import numpy as np

_FACTOR = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64
_LEAST = 1 << 14  # powers that are made at once


class Runs:
    """The runs of n words of a text, for any n.

    `between` stands between two words: with '', runs are equal that read the same
    though their words are cut elsewhere.
    """

    def __init__(self, found: tuple[str, ...], between: str):
        joined = between.join(found)
        content = joined.encode("utf-32-le", errors="surrogatepass")
        codes = np.frombuffer(content, np.uint32) + np.uint64(1)
        power, inverse = _powers(len(codes) + 1)
        self._gap = len(between)
        sizes = np.fromiter(map(len, found), np.int64, len(found)) + self._gap
        self._start = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        sums = np.zeros(len(codes) + 1 + self._gap, np.uint64)
        np.cumsum(codes * power[: len(codes)], out=sums[1 : len(codes) + 1])
        self._from = sums[self._start[:-1]]
        self._to = sums[self._start[1:] - self._gap]
        self._shift = inverse[self._start[:-1]]

    def of(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(codes, characters) of the runs of n words, from the first word on."""
        count = len(self._from) - n + 1
        if count <= 0:
            return np.zeros(0, np.uint64), np.zeros(0, np.int64)
        codes = (self._to[n - 1 :] - self._from[:count]) * self._shift[:count]
        return codes, self._start[n:] - self._gap - self._start[:count]


def most_frequent(codes: np.ndarray) -> tuple[int, int]:
    """(place of its first, count) of the most frequent code; the earliest, if several.

    None may be empty.
    """
    ordered = np.sort(codes)
    ends = np.flatnonzero(ordered[1:] != ordered[:-1])
    starts = np.concatenate([[0], ends + 1])
    counts = np.diff(np.concatenate([starts, [len(codes)]]))
    most = int(counts.max())
    if most == 1:
        return 0, 1
    return int(np.isin(codes, ordered[starts[counts == most]]).argmax()), most


def repeated(codes: np.ndarray) -> np.ndarray:
    """The places, in order, of the codes that occur more than once."""
    ordered = np.sort(codes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        return np.zeros(0, np.int64)
    nearest = np.minimum(np.searchsorted(twice, codes), len(twice) - 1)
    return np.flatnonzero(twice[nearest] == codes)


@functools.cache
def _powers_of(size: int) -> tuple[np.ndarray, np.ndarray]:
    made = []
    for factor in (_FACTOR, pow(_FACTOR, -1, 2**64)):
        powers = np.full(size, factor, np.uint64)
        powers[0] = 1
        made.append(np.cumprod(powers, dtype=np.uint64))
    return made[0], made[1]


def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of the factor and of its inverse, for at least `size` characters."""
    return _powers_of(1 << max(size, _LEAST).bit_length())

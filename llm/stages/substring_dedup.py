"""Removes long runs of words that stood in an earlier place of the corpus.

Texts that share no whole paragraph may still share a long passage: a quoted speech, a
template with other names. Models learn such passages by heart (Lee et al. 2022,
arXiv:2107.06499, who find them with a suffix array of everything). Here runs of `words`
words are hashed, and of every `spread` neighbours the least hash is compared with those
of all other texts (winnowing, Schleimer et al. 2003). So any passage that comes back
and is `spread` - 1 words longer than `words` is found, whatever stands around it, at a
fraction of the memory. What is found goes, in all places but the first; of a passage,
up to `spread` - 1 words may stay at either end. Case and punctuation do not matter.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from llm.document import Document, Group
from llm.knobs import Positive, Range
from llm.text import hashing

TINY = {"words": 10, "spread": 4}

_WORD = re.compile(r"\w+")
_SIGNS = re.compile(r"(?:[^\w\s]*(?!\S))?")  # that end a passage, and go with it
# Odd, so that it has an inverse mod 2^64: from the digits of pi, and of e.
_BASES = (0x243F6A8885A308D3, 0xB7E151628AED2A6B)


def make(*, words: Annotated[int, Range(5)] = 50, spread: Positive = 8) -> Group:
    """Makes the stage.

    Args:
      words: the shortest run that is compared.
      spread: neighbouring runs of which one is compared.
    """
    reason = f"{words} words of an earlier place"

    def rows(document: Document) -> np.ndarray:
        hashed = runs(_WORD.findall(document.text), words)
        return hashed[chosen(hashed[:, 0], spread)].view(np.uint8).reshape(-1, 16)

    def cut(document: Document, parts: Sequence[int]) -> Document | None:
        found = list(_WORD.finditer(document.text))
        hashed = runs([match[0] for match in found], words)
        first = chosen(hashed[:, 0], spread)[list(parts)]
        gone = np.zeros(len(found) + 1, np.int64)
        np.add.at(gone, first, 1)
        np.add.at(gone, first + words, -1)
        gone = np.cumsum(gone)[:-1] > 0
        if gone.all():
            return None
        text = document.text
        edges = np.flatnonzero(np.diff(gone, prepend=False, append=False))
        kept, start = _Kept(), 0
        for begin, end in edges.reshape(-1, 2).tolist():
            kept.add(text[start : found[begin].start()])
            start = _SIGNS.match(text, found[end - 1].end()).end()
        kept.add(text[start:])
        return dataclasses.replace(document, text=kept.text())

    return Group(
        hashing.SIZE, rows, hashing.keys, lambda rows: hashing.same(rows, reason), cut
    )


class _Kept:
    """Puts together what stood around passages that are gone."""

    def __init__(self):
        self._done, self._last = [], None

    def add(self, text: str) -> None:
        """Adds what stands behind a passage, or before the first one."""
        if self._last is None:
            self._last = text
            return
        rest = text.lstrip()
        before = self._last.rstrip()
        space = _between(self._last[len(before) :], text[: len(text) - len(rest)])
        if not before and not self._done:  # nothing is before it but indentation
            space = space.rpartition("\n")[2] if "\n" in space else ""
        if rest:
            self._done.append(before + space)
            self._last = rest
        else:
            self._last = before + space

    def text(self) -> str:
        """All of it."""
        return "".join([*self._done, self._last or ""])


def _between(before: str, after: str) -> str:
    """White space where a passage was, of that on both its sides.

    Of lines, the larger break stays, and how far the next line is indented; of others,
    that of one side.
    """
    if "\n" in before and "\n" in after:
        indent = after.rpartition("\n")[2]
        if after.count("\n") >= before.count("\n"):
            return after
        return before[: before.rindex("\n") + 1] + indent
    if "\n" in after:
        return after
    return before or after


def runs(found: list[str], words: int) -> np.ndarray:
    """Two hashes (uint64 [runs, 2]) of every run of so many words, in any case."""
    word = hashing.words([word.lower() for word in found])
    count = max(len(found) - words + 1, 0)
    made = np.zeros((count, 2), np.uint64)
    if not count:
        return made
    for n, base in enumerate(_BASES):
        # Polynomials by differences of sums, shifted back to the same power.
        powers = _powers(base, len(found))
        sums = np.concatenate([[np.uint64(0)], np.cumsum(word * powers)])
        back = _powers(pow(base, -1, 2**64), count)
        made[:, n] = hashing.mixed((sums[words:] - sums[:count]) * back)
    return made


def chosen(hashed: np.ndarray, spread: int) -> np.ndarray:
    """Places of the least of every `spread` neighbours, the last of equal ones."""
    if not len(hashed):
        return np.zeros(0, np.int64)
    wide = min(spread, len(hashed))
    around = np.lib.stride_tricks.sliding_window_view(hashed, wide)
    least = wide - 1 - np.argmin(around[:, ::-1], axis=1)
    return np.unique(least + np.arange(len(around)))


def _powers(base: int, count: int) -> np.ndarray:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors)

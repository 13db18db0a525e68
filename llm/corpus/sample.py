"""Texts of each label chosen by their hash: the order of files does not matter, the
same text is taken once, and memory holds the sample alone."""

import hashlib
import heapq
from collections.abc import Iterable, Sequence

import numpy as np

from llm.errors import InputError

_LABELS = 100  # more are a mistake, such as groups
_ADDRESSES = 1 << 24  # the part of a hash by which texts are held out

Hashed = tuple[int, str]


def of_labels(
    pairs: Iterable[tuple[str, str]], most: int, characters: int, seed: int
) -> dict[str, list[Hashed]]:
    """(hash, text) of each label, those of the smallest hashes, by hash.

    A text that has two labels is left out, and so is one without a character.

    Args:
      pairs: (label, text).
      most: texts of a label.
      characters: of a text, which is cut there.

    Raises:
      InputError: more labels than there can be.
    """
    heaps: dict[str, list[Hashed]] = {}
    kept: dict[str, set[int]] = {}
    for label, text in pairs:
        text = text[:characters]
        if not text.strip():
            continue
        if label not in heaps and len(heaps) == _LABELS:
            raise InputError(
                got=f"more than {_LABELS} labels", want="a filter.field of few labels"
            )
        heap, keys = heaps.setdefault(label, []), kept.setdefault(label, set())
        key = _hash(text, seed)
        if key in keys or (len(heap) == most and key > -heap[0][0]):
            continue
        keys.add(key)
        heapq.heappush(heap, (-key, text))
        if len(heap) > most:
            keys.remove(-heapq.heappop(heap)[0])
    every = [key for keys in kept.values() for key in keys]
    twice = {
        key
        for key, n in zip(*np.unique(every, return_counts=True), strict=True)
        if n > 1
    }
    return {
        label: sorted((-key, t) for key, t in heaps[label] if -key not in twice)
        for label in sorted(heaps)
    }


def apart(some: Sequence[Hashed], share: float) -> tuple[list[str], list[str]]:
    """(texts to learn from, texts held out), of which there is one or more."""
    ordered = sorted(some, key=lambda pair: pair[0] % _ADDRESSES)
    count = max(round(share * len(ordered)), 1)
    texts = [text for _, text in ordered]
    return texts[count:], texts[:count]


def _hash(text: str, seed: int) -> int:
    content = text.encode("utf-8", "surrogatepass")
    key = str(seed).encode()
    return int.from_bytes(
        hashlib.blake2b(content, digest_size=7, key=key).digest(), "big"
    )

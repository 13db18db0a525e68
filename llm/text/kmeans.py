"""Topics: groups of texts whose vectors point the same way, and the words they are of.

`N texts, K topics, D width`

Clusters are those of spherical k-means (Dhillon and Modha 2001): a text belongs to the
center whose cosine with it is largest, a center is the mean direction of its texts.
Vectors of language models all lean one way, which says nothing about a text, so their
mean is taken off first (Mu and Viswanath 2018, arXiv:1702.01417). Of several starts
(k-means++, Arthur and Vassilvitskii 2007) the one with the largest sum of cosines
stays.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llm.text.word_breaks import words

_ROUNDS = 100
_SMALLEST = 1e-12
_LONGEST = 30  # characters of a word that can name a topic


class Clusters(NamedTuple):
    """Attributes:
    centers: float32 [K, D], of length 1; those with most texts first.
    which: int64 [N], the center of each text.
    cosine: float32 [N], with that center.
    """

    centers: np.ndarray
    which: np.ndarray
    cosine: np.ndarray


def directions(vectors_ND: np.ndarray) -> np.ndarray:
    """Vectors without their mean, of length 1."""
    apart_ND = vectors_ND - vectors_ND.mean(axis=0, keepdims=True)
    size_N1 = np.linalg.norm(apart_ND, axis=1, keepdims=True)
    return apart_ND / np.maximum(size_N1, _SMALLEST)


def clusters(
    unit_ND: np.ndarray, count: int, *, least: int = 1, seed: int = 0, starts: int = 4
) -> Clusters:
    """Groups vectors of length 1 by direction.

    Args:
      count: centers, at most as many as vectors.
      least: a center of fewer vectors is given up, and they go to others.
      starts: of which the best stays.
    """
    rng = np.random.default_rng(seed)
    made = [_settled(unit_ND, _spread(unit_ND, count, rng)) for _ in range(starts)]
    best_KD = max(made, key=lambda centers_KD: (unit_ND @ centers_KD.T).max(1).sum())
    while True:
        which_N, cosine_N = _nearest(unit_ND, best_KD)
        size_K = np.bincount(which_N, minlength=len(best_KD))
        if size_K.min() >= min(least, len(unit_ND)) or len(best_KD) == 1:
            break
        best_KD = _settled(unit_ND, np.delete(best_KD, size_K.argmin(), axis=0))
    order_K = np.argsort(-size_K, kind="stable")
    place_K = np.argsort(order_K)
    return Clusters(best_KD[order_K], place_K[which_N], cosine_N)


def _spread(unit_ND: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Vectors to begin with, each drawn by its distance from those before."""
    chosen = [int(rng.integers(len(unit_ND)))]
    far_N = np.full(len(unit_ND), np.inf)
    while len(chosen) < min(count, len(unit_ND)):
        last_N = 1.0 - unit_ND @ unit_ND[chosen[-1]]
        far_N = np.minimum(far_N, np.maximum(last_N.astype(np.float64), 0.0))
        far_N[chosen] = 0.0
        if not far_N.sum() > _SMALLEST:
            break  # the rest are copies
        chosen.append(int(rng.choice(len(unit_ND), p=far_N / far_N.sum())))
    return unit_ND[chosen]


def _settled(unit_ND: np.ndarray, centers_KD: np.ndarray) -> np.ndarray:
    """Centers that are the mean directions of what is nearest to them."""
    before_N = None
    for _ in range(_ROUNDS):
        which_N, _ = _nearest(unit_ND, centers_KD)
        if before_N is not None and np.array_equal(which_N, before_N):
            break
        before_N = which_N
        order_N = np.argsort(which_N, kind="stable")
        held_K, first_K = np.unique(which_N[order_N], return_index=True)
        sum_KD = np.add.reduceat(unit_ND[order_N], first_K, axis=0)
        size_K1 = np.linalg.norm(sum_KD, axis=1, keepdims=True)
        # A center without texts stays where it is.
        centers_KD = centers_KD.copy()
        centers_KD[held_K] = sum_KD / np.maximum(size_K1, _SMALLEST)
    return centers_KD


def _nearest(unit_ND: np.ndarray, centers_KD: np.ndarray):
    cosine_NK = unit_ND @ centers_KD.T
    which_N = cosine_NK.argmax(axis=1)
    return which_N, cosine_NK[np.arange(len(unit_ND)), which_N]


def telling(texts: Sequence[str], which_N: np.ndarray, most: int) -> list[list[str]]:
    """The words by which each topic differs most from all others.

    A word counts once a text. Words are ranked by how many standard errors the
    logarithm of their odds within the topic is above that outside (Monroe, Colaresi
    and Quinn 2008), with half a text added to each count.
    """
    size_K = np.bincount(which_N)
    within = [Counter() for _ in size_K]
    for text, topic in zip(texts, which_N.tolist(), strict=True):
        within[topic].update({w for w in words(text.lower()) if _is_name(w)})
    every = Counter()
    for counts in within:
        every.update(counts)
    found = []
    for counts, size in zip(within, size_K.tolist(), strict=True):
        rest = len(texts) - size
        ranked = []
        for word, here in counts.items():
            there = every[word] - here
            four = np.array([here, size - here, there, rest - there]) + 0.5
            odds = np.log(four[0] / four[1]) - np.log(four[2] / four[3])
            ranked.append((-odds / np.sqrt((1 / four).sum()), word))
        found.append([word for score, word in sorted(ranked)[:most] if score < 0])
    return found


def _is_name(word: str) -> bool:
    return word.isalpha() and len(word.encode()) > 2 and len(word) <= _LONGEST

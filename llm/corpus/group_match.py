"""Which rows of a Group match, found on disk: a share of all keys at a time.

Each shard has its keys in order (`tasks.describe`), so a share of the range of keys is
a slice of each. Rows are numbered through all shards; a bucket is the rows of one key,
in that order. Memory is that of one share, and of what matches.
"""

import collections
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from llm.corpus import shards
from llm.document import Group

_KEYS = 1 << 22  # of a share, of 12 bytes each
_CLUSTERS = 5  # largest ones that are told
_OPEN = 200  # files whose rows are mapped at once


def shares(keys: int) -> int:
    """In how many shares so many keys are looked at."""
    return max(1, -(-keys // _KEYS))


def match(
    group: Group,
    folder: pathlib.Path,
    names: Sequence[str],
    firsts: Sequence[int],
    share: int,
    of: int,
) -> None:
    """Writes the matches among the keys of a share.

    Args:
      names: of the shards.
      firsts: the number of the first row of each.
    """
    low, high = (2**64 * n // of for n in (share, share + 1))
    keys, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    for name, first in zip(names, firsts, strict=True):
        ranked = shards.load(folder / f"{name}.keys.npy")
        start = int(np.searchsorted(ranked, np.uint64(low)))
        last = high >= 2**64
        stop = len(ranked) if last else int(np.searchsorted(ranked, np.uint64(high)))
        keys.append(np.asarray(ranked[start:stop]))
        which = shards.load(folder / f"{name}.which.npy")[start:stop]
        numbers.append(which.astype(np.uint64) + np.uint64(first))
    keys, numbers = np.concatenate(keys), np.concatenate(numbers)
    ranked = np.argsort(keys, kind="stable")
    keys, numbers = keys[ranked], numbers[ranked]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    sizes = np.diff(np.append(starts, len(keys)))
    rows = _Values(folder, names, firsts, "described")
    later, earlier, why, reasons = [], [], [], []
    for start, size in zip(
        starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True
    ):
        bucket = np.unique(numbers[start : start + size])
        if len(bucket) < 2:
            continue
        for found in group.reduce(rows.take(bucket)):
            if found.reason not in reasons:
                reasons.append(found.reason)
            later.append(bucket[found.later])
            earlier.append(bucket[found.earlier])
            why.append(reasons.index(found.reason))
    name = f"share-{share:05d}"
    pairs = np.array([later, earlier, why], np.uint64).reshape(3, -1)
    shards.save(folder / f"{name}.npy", np.unique(pairs, axis=1))
    shards.finish(folder, name, {"reasons": reasons})


def gather(
    folder: pathlib.Path,
    names: Sequence[str],
    firsts: Sequence[int],
    of: int,
    whole: bool,
) -> dict[str, Any]:
    """Brings the matches of all shares together, for `tasks.cut` and the report.

    Args:
      whole: whether matching documents are dropped, not parts of them.
    """
    later, earlier, why, reasons = [], [], [], []
    for share in range(of):
        name = f"share-{share:05d}"
        held = shards.counted(folder, name)["reasons"]
        reasons += [reason for reason in held if reason not in reasons]
        places = np.array([reasons.index(reason) for reason in held], np.uint64)
        pairs = np.asarray(shards.load(folder / f"{name}.npy"))
        later.append(pairs[0])
        earlier.append(pairs[1])
        why.append(places[pairs[2].astype(np.int64)] if len(held) else pairs[2])
    # In the order of the reasons' names, so that the number of shares does not matter.
    ranks = np.argsort(np.argsort(np.array(reasons, str), kind="stable"))
    later, earlier = np.concatenate(later), np.concatenate(earlier)
    why = ranks[np.concatenate(why).astype(np.int64)] if reasons else later * 0
    reasons = sorted(reasons)
    ranked = np.lexsort([why, earlier, later])
    later, earlier, why = later[ranked], earlier[ranked], why[ranked].astype(np.int64)
    drops = np.array([bool(reason) for reason in reasons], bool)
    taken = drops[why] if reasons else np.zeros(0, bool)
    ids = _Values(folder, names, firsts, "ids")
    linked = np.ones(len(later), bool) if whole else ~taken
    links = np.unique(
        np.stack([ids.take(earlier[linked]), ids.take(later[linked])]), axis=1
    )
    _, first = np.unique(later[taken], return_index=True)
    shards.save(folder / "links.npy", links)
    shards.save(folder / "later.npy", later[taken][first])
    shards.save(folder / "reason.npy", why[taken][first].astype(np.uint32))
    count, largest = clusters(later[taken], earlier[taken])
    told = {
        "reasons": reasons,
        "clusters": count,
        "largest": [
            [size, *_owner(folder, names, firsts, number)] for size, number in largest
        ],
    }
    shards.finish(folder, "matched", told)
    return told


def clusters(later, earlier) -> tuple[int, list[tuple[int, int]]]:
    """How many sets of rows match, and (size, first row) of the largest."""
    if not len(later):
        return 0, []
    numbers, places = np.unique(np.concatenate([later, earlier]), return_inverse=True)
    ones = np.ones(len(later), np.int8)
    pairs = (places[: len(later)], places[len(later) :])
    shape = (len(numbers), len(numbers))
    count, label = connected_components(coo_array((ones, pairs), shape), directed=False)
    sizes = collections.Counter(label.tolist())
    _, first = np.unique(label, return_index=True)
    ranked = sorted(range(count), key=lambda n: (-sizes[n], first[n]))[:_CLUSTERS]
    return count, [(sizes[n], int(numbers[first[n]])) for n in ranked]


def _owner(folder, names, firsts, number: int) -> tuple[int, int]:
    """(shard, line) of the document that a row belongs to."""
    shard = int(np.searchsorted(firsts, number, side="right")) - 1
    owners = shards.load(folder / f"{names[shard]}.owners.npy")
    return shard, int(owners[number - firsts[shard]])


class _Values:
    """An array of every shard, by numbers that go through all of them."""

    def __init__(self, folder, names, firsts, what: str):
        self._folder, self._names, self._what = folder, names, what
        self._firsts = np.asarray(firsts, np.uint64)
        self._load = functools.lru_cache(_OPEN)(self._opened)

    def _opened(self, shard: int) -> np.ndarray:
        return shards.load(self._folder / f"{self._names[shard]}.{self._what}.npy")

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """The values of ascending or other numbers, in their order."""
        which = np.searchsorted(self._firsts, numbers, side="right") - 1
        found = None
        for shard in np.unique(which).tolist():
            mine = which == shard
            held = self._load(shard)
            if found is None:
                found = np.zeros((len(numbers), *held.shape[1:]), held.dtype)
            found[mine] = held[(numbers[mine] - self._firsts[shard]).astype(np.int64)]
        return np.zeros(0, np.uint64) if found is None else found

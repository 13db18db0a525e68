"""Cuts a corpus into train, validation and test by group, the same way every time.

A group (a package, a book, a site) is never cut, and groups whose documents resemble
each other (`links`) move together, so that no held-out text has a twin in training.

Groups stand in the order of a hash of their names. Test takes them from one end and
validation from the other, until each holds its share of the bytes; the middle is train.
A new group therefore moves the ends by about its own size and leaves all else where it
was, and none ever moves between validation and test. A group of more than 15 % of a
share goes to train as long as others fill it: one large package would be most of the
examination. One with more than half of all bytes always does, and where the others hold
less than the shares, they are the shares.
"""

import hashlib
from collections.abc import Hashable, Iterable

from llm.errors import InputError

SPLITS = ("train", "validation", "test")

_LARGEST = 0.15  # of a held-out share that one group may fill
_FULL = 0.95  # of a share that counts as full


def sides(
    documents: Iterable[tuple[Hashable, str, int]],
    *,
    validation_fraction: float,
    test_fraction: float,
    links: Iterable[tuple[Hashable, Hashable]] = (),
) -> dict[str, str]:
    """The split of each group.

    Args:
      documents: id, group, and UTF-8 bytes of the text of each.
      validation_fraction: share of the bytes that validates, in (0, 1).
      test_fraction: share of the bytes that tests, in (0, 1).
      links: pairs of document ids that must end on one side.

    Raises:
      InputError: fractions out of range, or fewer groups than splits.
    """
    check_fractions(validation_fraction, test_fraction)
    links = list(links)
    linked = {id for pair in links for id in pair}
    held: dict[str, int] = {}
    of_linked, count = [], 0
    for id, group, size in documents:
        held[group] = held.get(group, 0) + size
        count += 1
        if id in linked:
            of_linked.append((id, group))
    cluster = _clusters(held, of_linked, links)
    sizes: dict[str, int] = {}
    for group, size in held.items():
        sizes[cluster[group]] = sizes.get(cluster[group], 0) + size
    if len(sizes) < len(SPLITS):
        raise InputError(
            got=f"{count} documents in {len(sizes)} groups",
            want=f"at least {len(SPLITS)} groups: {', '.join(SPLITS)} cut none",
            do="add more; a long text file is cut by piece_bytes of the source 'text', "
            "a site by data.source.group=page of the source 'warc'",
        )
    order = sorted(sizes, key=lambda name: (_hash(name), name))
    total = sum(sizes.values())
    held_out, most = validation_fraction + test_fraction, total
    largest = max(order, key=lambda name: sizes[name])
    left = 1  # for train
    if 2 * sizes[largest] > total:
        order.remove(largest)
        most, left = min(total, (total - sizes[largest]) / held_out), 0
    test = _take(order, sizes, test_fraction * most, left + 1)
    rest = [name for name in reversed(order) if name not in test]
    validation = _take(rest, sizes, validation_fraction * most, left)
    side = dict.fromkeys(validation, "validation") | dict.fromkeys(test, "test")
    return {group: side.get(cluster[group], "train") for group in held}


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Raises InputError for shares that leave a split without text."""
    if min(validation_fraction, test_fraction) <= 0 or (
        validation_fraction + test_fraction >= 1
    ):
        raise InputError(
            got=f"validation_fraction {validation_fraction}, test_fraction "
            f"{test_fraction}",
            want="both above 0 and a sum below 1",
        )


def _take(order: list[str], sizes: dict[str, int], share: float, left: int) -> set[str]:
    """Names from the start of `order` that fill `share` bytes, small ones first.

    At least one is taken, and at least `left` are not.
    """
    taken, filled, most = set(), 0, len(order) - left
    for name in order:
        if filled >= _FULL * share or len(taken) == most:
            break
        if sizes[name] <= _LARGEST * share and filled + sizes[name] <= share:
            taken.add(name)
            filled += sizes[name]
    if not taken or filled < share / 2:
        # Few groups, all of them large: the one that comes nearest to the share.
        for name in order:
            if len(taken) == most:
                break
            if name not in taken and abs(filled + sizes[name] - share) < abs(
                filled - share
            ):
                taken.add(name)
                filled += sizes[name]
    return taken or {min(order, key=lambda name: sizes[name])}


def _clusters(groups, documents, links) -> dict[str, str]:
    """Group -> the least name among the groups that links tie to it."""
    parent = {}

    def root(node):
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(a, b):
        a, b = sorted((root(a), root(b)))
        parent[b] = a

    for id, group in documents:
        join(("group", group), ("id", id))
    for a, b in links:
        join(("id", a), ("id", b))
    # "group" sorts before "id", so the root of a set that has a group is a group.
    return {group: root(("group", group))[1] for group in groups}


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest()

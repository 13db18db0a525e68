"""Splits are stable, near their shares, and cut neither groups nor links."""

import random

import pytest
from data_config import split

from llm.corpus.split import SPLITS
from llm.document import Document
from llm.errors import InputError

SHARES = {"validation_fraction": 0.05, "test_fraction": 0.1}


def corpus(groups, seed=0):
    rng = random.Random(seed)
    return [
        Document(f"{name}/{i}", "x" * rng.randrange(1, 400), "s", name, "code", 1)
        for name in groups
        for i in range(rng.randrange(1, 8))
    ]


def sides(parts):
    return {d.group: name for name, part in parts.items() for d in part}


def size(documents):
    return sum(len(d.text) for d in documents)


def test_shares_are_met_and_groups_are_whole():
    documents = corpus([f"g{i}" for i in range(300)])
    parts = split(documents, **SHARES)
    total = size(documents)
    assert 0.95 * 0.05 <= size(parts["validation"]) / total <= 0.05
    assert 0.95 * 0.1 <= size(parts["test"]) / total <= 0.1
    assert sum(len(part) for part in parts.values()) == len(documents)
    for document in documents:
        assert document in parts[sides(parts)[document.group]]


def test_order_and_seed_of_the_process_do_not_matter():
    documents = corpus([f"g{i}" for i in range(50)])
    shuffled = random.Random(3).sample(documents, len(documents))
    assert sides(split(documents, **SHARES)) == sides(split(shuffled, **SHARES))


@pytest.mark.parametrize("change", ["add", "remove"])
def test_another_group_moves_little(change):
    names = [f"g{i}" for i in range(300)]
    documents = corpus(names)
    before = sides(split(documents, **SHARES))
    for i in range(40):
        if change == "add":
            new = Document("new", "y" * 500, "s", f"new{i}", "code", 1)
            changed = [*documents, new]
        else:
            changed = [d for d in documents if d.group != names[i]]
        after = sides(split(changed, **SHARES))
        moved = [g for g in before if g in after and before[g] != after[g]]
        assert len(moved) <= 8  # of 300
        crossed = [g for g in moved if {before[g], after[g]} == set(SPLITS[1:])]
        assert not crossed, "a held-out group went over to the other held-out split"


def test_linked_groups_stay_together():
    documents = corpus([f"g{i}" for i in range(100)])
    before = sides(split(documents, **SHARES))
    links = [(f"g{i}/0", f"g{i + 1}/0") for i in range(0, 100, 2)]
    assert any(before[a[:-2]] != before[b[:-2]] for a, b in links)
    after = sides(split(documents, **SHARES, links=links))
    assert all(after[a[:-2]] == after[b[:-2]] for a, b in links)
    assert set(after.values()) == set(SPLITS)


def test_links_hold_through_dropped_documents():
    documents = corpus([f"g{i}" for i in range(60)])
    links = [(f"g{i}/0", f"gone{i}") for i in range(0, 60, 2)]
    links += [(f"gone{i}", f"g{i + 1}/0") for i in range(0, 60, 2)]
    after = sides(split(documents, **SHARES, links=links))
    assert all(after[f"g{i}"] == after[f"g{i + 1}"] for i in range(0, 60, 2))


def test_a_large_group_is_not_most_of_a_held_out_split():
    documents = corpus([f"g{i}" for i in range(300)])
    share = size(documents) * 0.1
    for i in range(20):
        large = Document("big", "z" * int(share * 0.9), "s", f"big{i}", "code", 1)
        assert sides(split([*documents, large], **SHARES))[f"big{i}"] == "train"


@pytest.mark.parametrize("count", [3, 4, 7])
def test_few_groups_fill_every_split(count):
    documents = [
        Document(str(i), "x" * 100, "s", str(i), "code", 1) for i in range(count)
    ]
    parts = split(documents, **SHARES)
    assert all(parts.values()) and len(parts["train"]) == count - 2


def test_too_few_groups():
    documents = corpus(["a", "b"])
    with pytest.raises(InputError, match=r"2 groups.*at least 3"):
        split(documents, **SHARES)
    documents = corpus(["a", "b", "c"])
    with pytest.raises(InputError, match="1 groups"):
        split(documents, **SHARES, links=[("a/0", "b/0"), ("b/0", "c/0")])


@pytest.mark.parametrize("shares", [(0, 0.1), (0.1, 0), (0.5, 0.5), (-0.1, 0.1)])
def test_bad_fractions(shares):
    with pytest.raises(InputError, match="sum below 1"):
        split(corpus("abcd"), validation_fraction=shares[0], test_fraction=shares[1])


def test_no_split_is_ever_empty():
    """Whatever the sizes and the fractions are; a group of most is train's."""
    rng = random.Random(0)
    for _ in range(2000):
        count = rng.randrange(3, 12)
        lengths = [int(10 ** rng.uniform(0, 5)) for _ in range(count)]
        documents = [
            Document(f"{rng.random()}", "x" * n, "s", f"g{i}", "code", 1)
            for i, n in enumerate(lengths)
        ]
        shares = rng.uniform(0.01, 0.45), rng.uniform(0.01, 0.45)
        parts = split(documents, validation_fraction=shares[0], test_fraction=shares[1])
        assert all(parts[name] for name in SPLITS), (lengths, shares)
        if 2 * max(lengths) > sum(lengths):
            largest = max(documents, key=lambda d: len(d.text))
            assert largest in parts["train"]


def test_one_large_site_and_some_small_ones():
    documents = corpus([f"s{i}" for i in range(30)])
    giant = Document("big", "x" * (60 * size(documents)), "s", "big", "code", 1)
    parts = split([*documents, giant], validation_fraction=0.05, test_fraction=0.1)
    assert giant in parts["train"]
    # What there is beside it is shared out as the fractions are.
    assert 1.5 < size(parts["test"]) / size(parts["validation"]) < 2.7

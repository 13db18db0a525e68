"""Planned rows equal a plain loop over the documents laid end to end."""

import numpy as np
import pytest

from llm.data import packing


def line_of(lengths, order):
    return [(d, i) for d in order for i in range(lengths[d])]


def tokens_of(plan, row):
    return [
        (span.document, span.start + i)
        for span in packing.spans(plan, row)
        for i in range(span.length)
    ]


@pytest.mark.parametrize("seq_len", [1, 2, 5, 16, 100, 5000])
@pytest.mark.parametrize("seed", [0, 7])
def test_rows_equal_a_plain_loop(seq_len, seed):
    lengths = np.random.default_rng(seed).integers(2, 60, 40)
    plan = packing.plan(lengths, seq_len, seed, epoch=3)
    line = line_of(lengths, plan.order)
    pieces = [line[i : i + seq_len + 1] for i in range(0, len(line) - 1, seq_len)]
    assert packing.rows_per_epoch(lengths, seq_len) == len(pieces) == len(plan.rows)
    for row, place in enumerate(plan.rows):
        assert tokens_of(plan, row) == pieces[place]


@pytest.mark.parametrize("seq_len", [3, 16])
def test_every_token_is_a_target_once(seq_len):
    lengths = np.random.default_rng(1).integers(2, 60, 40)
    plan = packing.plan(lengths, seq_len, 0, 0)
    targets = [t for row in range(len(plan.rows)) for t in tokens_of(plan, row)[1:]]
    assert sorted(targets) == sorted(line_of(lengths, plan.order)[1:])


def test_orders_are_permutations_that_differ_by_epoch_and_seed():
    lengths = np.full(500, 9)
    plans = [packing.plan(lengths, 4, *key) for key in ((0, 0), (0, 1), (1, 0))]
    for plan in plans:
        assert sorted(plan.order) == list(range(500))
        assert sorted(plan.rows) == list(range(len(plan.rows)))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (plans[a].order == plans[b].order).sum() < 10
        assert (plans[a].rows == plans[b].rows).sum() < 10
    again = packing.plan(lengths, 4, 0, 1)
    assert np.array_equal(again.order, plans[1].order)
    assert np.array_equal(again.rows, plans[1].rows)


def test_order_is_pinned():
    # A written-out table: it must not change with numpy, or resumed runs would differ.
    plan = packing.plan(np.full(8, 3), 4, seed=5, epoch=2)
    assert plan.order.tolist() == [2, 3, 5, 1, 7, 4, 6, 0]
    assert plan.rows.tolist() == [5, 0, 4, 2, 3, 1]


def test_unshuffled_rows_keep_the_order():
    plan = packing.unshuffled(np.array([3, 0, 5, 2]), 4)
    assert packing.spans(plan, 0) == [(0, 0, 3), (2, 0, 2)]
    assert packing.spans(plan, 1) == [(2, 1, 4), (3, 0, 1)]
    assert packing.spans(plan, 2) == [(3, 0, 2)]
    assert len(plan.rows) == 3


@pytest.mark.parametrize(("lengths", "rows"), [([], 0), ([1], 0), ([2], 1), ([9], 2)])
def test_row_counts(lengths, rows):
    assert packing.rows_per_epoch(np.array(lengths, np.int64), 4) == rows

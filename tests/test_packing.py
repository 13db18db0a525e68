"""Planned rows equal a plain loop over the documents laid end to end."""

import numpy as np
import pytest

from llm.data import packing


def line_of(lengths, order):
    return [(d, i) for d in order for i in range(lengths[d])]


def tokens_of(plan, row):
    return [
        (span.document, span.start + i)
        for span in plan.spans(row)
        for i in range(span.length)
    ]


@pytest.mark.parametrize("seq_len", [1, 2, 5, 16, 100, 5000])
@pytest.mark.parametrize("seed", [0, 7])
def test_rows_equal_a_plain_loop(seq_len, seed):
    lengths = np.random.default_rng(seed).integers(2, 60, 40)
    plan = packing.Line(lengths, seq_len).epoch(seed, 3)
    line = line_of(lengths, plan.order)
    pieces = [line[i : i + seq_len + 1] for i in range(0, len(line) - 1, seq_len)]
    assert (
        packing.Line(lengths, seq_len).rows_per_epoch == len(pieces) == len(plan.rows)
    )
    for row, place in enumerate(plan.rows):
        assert tokens_of(plan, row) == pieces[place]


@pytest.mark.parametrize("seq_len", [3, 16])
def test_every_token_is_a_target_once(seq_len):
    lengths = np.random.default_rng(1).integers(2, 60, 40)
    plan = packing.Line(lengths, seq_len).epoch(0, 0)
    targets = [t for row in range(len(plan.rows)) for t in tokens_of(plan, row)[1:]]
    assert sorted(targets) == sorted(line_of(lengths, plan.order)[1:])


def test_orders_are_permutations_that_differ_by_epoch_and_seed():
    lengths = np.full(500, 9)
    plans = [packing.Line(lengths, 4).epoch(*key) for key in ((0, 0), (0, 1), (1, 0))]
    for plan in plans:
        assert sorted(plan.order) == list(range(500))
        assert sorted(plan.rows) == list(range(len(plan.rows)))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (plans[a].order == plans[b].order).sum() < 10
        assert (plans[a].rows == plans[b].rows).sum() < 10
    again = packing.Line(lengths, 4).epoch(0, 1)
    assert np.array_equal(again.order, plans[1].order)
    assert np.array_equal(again.rows, plans[1].rows)


def test_order_is_pinned():
    # A written-out table: it must not change with numpy, or resumed runs would differ.
    plan = packing.Line(np.full(8, 3), 4).epoch(seed=5, epoch=2)
    assert plan.order.tolist() == [2, 3, 5, 1, 7, 4, 6, 0]
    assert plan.rows.tolist() == [5, 0, 4, 2, 3, 1]


def test_unshuffled_rows_keep_the_order():
    plan = packing.Line(np.array([3, 0, 5, 2]), 4).unshuffled()
    assert plan.spans(0) == [(0, 0, 3), (2, 0, 2)]
    assert plan.spans(1) == [(2, 1, 4), (3, 0, 1)]
    assert plan.spans(2) == [(3, 0, 2)]
    assert len(plan.rows) == 3


@pytest.mark.parametrize(("lengths", "rows"), [([], 0), ([1], 0), ([2], 1), ([9], 2)])
def test_row_counts(lengths, rows):
    assert packing.Line(np.array(lengths, np.int64), 4).rows_per_epoch == rows


@pytest.mark.parametrize("kinds", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_boxes_equal_a_plain_first_fit(kinds, seed):
    sizes_DK = np.random.default_rng(seed).integers(1, 40, (200, kinds))
    sizes_DK[7] = 99  # for no row
    room_K = [64, 48][:kinds]
    rows = []
    for d in sorted(range(200), key=lambda d: -sizes_DK[d].sum()):
        if d == 7:
            continue
        for row in rows:
            if all(sizes_DK[[*row, d]].sum(axis=0) <= room_K):
                row.append(d)
                break
        else:
            rows.append([d])
    made = packing.boxes(sizes_DK, room_K)
    plan = made.unshuffled()
    found = [[span.document for span in plan.spans(r)] for r in range(len(rows))]
    assert found == rows and made.rows_per_epoch == len(rows)
    assert made.left_out == 1
    span = plan.spans(0)[0]
    assert (span.start, span.length) == (0, sizes_DK[span.document].sum())


def test_boxes_have_a_new_order_every_epoch():
    made = packing.boxes(np.full((300, 1), 5), [11])
    plans = [made.epoch(*key) for key in ((0, 0), (0, 1), (1, 0))]
    every = [sorted(s.document for r in range(150) for s in p.spans(r)) for p in plans]
    assert every == [list(range(300))] * 3
    assert all((plans[0].rows == other.rows).sum() < 10 for other in plans[1:])
    again = made.epoch(0, 1)
    assert np.array_equal(again.rows, plans[1].rows)

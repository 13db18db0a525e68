"""Batches are a pure function of the step, on any number of hosts."""

import collections
import itertools

import numpy as np
import pytest

from llm.data import loader, packing
from llm.data.tokens import TokenSplit
from llm.errors import InputError

T, B = 16, 8


def make_split(lengths):
    """Documents whose tokens say where they stand: document * 1000 + index."""
    lengths = np.asarray(lengths)
    documents = [d * 1000 + np.arange(n) for d, n in enumerate(lengths)]
    tokens = np.concatenate(documents).astype(np.uint32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenSplit(
        name="train",
        shards=(tokens,),
        starts=np.zeros(1, np.int64),
        offsets=offsets,
        ids=tuple(f"doc{d}" for d in range(len(lengths))),
        raw_bytes=lengths * 4,
        manifest={"pad_id": 0},
    )


def features(record, rng):
    return dict(record, noise=rng.integers(0, 1 << 30, 2))


@pytest.fixture(scope="module")
def split():
    return make_split(np.random.default_rng(0).integers(2, 70, 50))


def build(split, seed=0, hosts=(0, 1), batch_size=B, seq_len=T):
    return loader.batches(
        split, seq_len=seq_len, batch_size=batch_size, seed=seed, features=features,
        hosts=hosts,
    )  # fmt: skip


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_shapes_and_types(split):
    batch = build(split)[3]
    for name in ("tokens", "segments", "positions"):
        assert batch[name].shape == (B, T + 1) and batch[name].dtype == np.int32


def test_rows_equal_a_plain_loop(split):
    data = build(split)
    plan = packing.Line(split.lengths, T).epoch(0, 0)
    line = [d * 1000 + i for d in plan.order for i in range(split.lengths[d])]
    for step in range(data.rows_per_epoch // B):
        batch = data[step]
        for r in range(B):
            place = int(plan.rows[step * B + r]) * T
            want = line[place : place + T + 1]
            assert batch["tokens"][r, : len(want)].tolist() == want
            segment, position, before = 0, 0, None
            for i in range(T + 1):
                if i >= len(want):
                    segment_wanted = position = 0
                else:
                    new = want[i] // 1000 != before
                    segment, before = segment + new, want[i] // 1000
                    position = 0 if new else position + 1
                    segment_wanted = segment
                assert batch["segments"][r, i] == segment_wanted
                assert batch["positions"][r, i] == position


def test_epochs_cover_every_token_once_as_a_target(split):
    data = build(split, batch_size=1)
    first = [
        packing.Line(split.lengths, T).epoch(0, epoch).order[0] for epoch in range(3)
    ]
    everything = {d * 1000 + i for d, n in enumerate(split.lengths) for i in range(n)}
    for epoch in range(3):
        seen = collections.Counter()
        for r in range(data.rows_per_epoch):
            batch = data[epoch * data.rows_per_epoch + r]
            real = batch["segments"][0, 1:] > 0
            seen.update(batch["tokens"][0, 1:][real].tolist())
        assert set(seen.values()) == {1}
        assert set(seen) == everything - {int(first[epoch]) * 1000}


def test_step_is_pure(split):
    one, other = build(split), build(split)
    steps = [0, 5, 3, 200, 3, 10**7]
    want = {step: one[step] for step in steps}
    for step in reversed(steps):
        assert equal(other[step], want[step])
        assert equal(build(split)[step], want[step])
    assert not equal(want[0], want[5])
    assert not equal(build(split, seed=1)[0], want[0])


def test_a_batch_may_straddle_epochs(split):
    data = build(split)
    assert data.rows_per_epoch % B, "else this tests nothing"
    step = data.rows_per_epoch // B
    single = build(split, batch_size=1)
    rows = [single[step * B + r] for r in range(B)]
    for name in ("tokens", "segments", "positions"):
        want = np.concatenate([row[name] for row in rows])
        assert np.array_equal(data[step][name], want)


@pytest.mark.parametrize("count", [2, 4])
def test_hosts_see_slices_of_the_same_batch(split, count):
    whole = build(split)
    parts = [build(split, hosts=(host, count)) for host in range(count)]
    for step in (0, 1, 13, 77, 1000):
        joined = {
            name: np.concatenate([part[step][name] for part in parts])
            for name in whole[step]
        }
        assert equal(joined, whole[step])


def test_generator_depends_on_the_row_alone(split):
    noise = np.concatenate([build(split)[step]["noise"] for step in range(40)])
    assert len({tuple(row) for row in noise.tolist()}) == len(noise)
    assert np.array_equal(
        build(split, batch_size=2 * B)[0]["noise"],
        np.concatenate([build(split)[0]["noise"], build(split)[1]["noise"]]),
    )


@pytest.mark.parametrize("start", [0, 17])
def test_iterate_reads_ahead_in_order(split, start):
    data = build(split)
    for step, batch in zip(range(start, start + 30), data.iterate(start), strict=False):
        assert equal(batch, data[step])


def test_document_ids_are_those_of_the_batch(split):
    for hosts in ((0, 1), (1, 2)):
        data = build(split, hosts=hosts)
        for step in (0, 9, 1000):
            batch = build(split)[step]
            real = batch["tokens"][batch["segments"] > 0]
            want = {f"doc{token // 1000}" for token in real}
            assert set(data.document_ids(step)) == want
            assert len(data.document_ids(step)) == len(want)


def test_evaluation_rows_are_fixed_and_cover_the_split(split):
    data = loader.eval_batches(split, seq_len=T, batch_size=B, features=features)
    seen = []
    for batch in data:
        assert batch["tokens"].shape == (B, T + 1)
        seen += batch["tokens"][:, 1:][batch["segments"][:, 1:] > 0].tolist()
    line = [d * 1000 + i for d, n in enumerate(split.lengths) for i in range(n)]
    assert seen == line[1:]
    rows = packing.Line(split.lengths, T).rows_per_epoch
    assert rows % B and len(data) == -(-rows // B)
    filler = data[len(data) - 1]
    assert (filler["segments"][rows % B :] == 0).all()
    with pytest.raises(IndexError):
        data[len(data)]


def test_evaluation_limit_is_spread(split):
    knobs = {"seq_len": T, "features": features, "batch_size": 4}
    all_rows = [
        row.tolist()
        for batch in loader.eval_batches(split, **knobs)
        for row in batch["tokens"]
    ]
    data = loader.eval_batches(split, limit=6, **knobs)
    few = [row.tolist() for batch in data for row in batch["tokens"]]
    places = [all_rows.index(row) for row in few[:6]]
    rows = packing.Line(split.lengths, T).rows_per_epoch
    assert len(data) == 2 and places == [i * rows // 6 for i in range(6)]
    assert (data[1]["segments"][2:] == 0).all()
    parts = [
        loader.eval_batches(split, limit=6, hosts=(host, 2), **knobs) for host in (0, 1)
    ]
    for step in range(2):
        joined = np.concatenate([part[step]["tokens"] for part in parts])
        assert np.array_equal(joined, data[step]["tokens"])


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"batch_size": 6, "hosts": (0, 4)}, "multiple of 4"),
        ({"hosts": (2, 2)}, "host from 0 to 1"),
        ({"seq_len": 0}, "seq_len 0"),
        ({"batch_size": 0}, "batch_size 0"),
    ],
)
def test_bad_settings(split, knobs, words):
    with pytest.raises(InputError, match=words):
        build(split, **knobs)


def test_split_without_a_target():
    with pytest.raises(InputError, match="1 tokens"):
        build(make_split([1]))


def test_few_tokens_are_padded():
    batch = build(make_split([5]))[0]
    assert batch["segments"][0].tolist() == [1] * 5 + [0] * 12
    assert batch["positions"][0].tolist() == [0, 1, 2, 3, 4] + [0] * 12


def test_two_readers_of_one_loader(split):
    """Two readers of one loader, interleaved, do not disturb each other."""
    data = build(split)
    first, second = data.iterate(0), data.iterate(4)
    for step, (a, b) in enumerate(itertools.islice(zip(first, second, strict=True), 9)):
        assert equal(a, data[step]) and equal(b, data[step + 4])


def test_whole_texts_are_cut_only_where_they_are_longer_than_a_row():
    split = make_split([5, 12, 3, 8, 2])
    made = loader.batches(
        split, seq_len=8, batch_size=1, seed=0, features=features,
        room=lambda seq_len: (((), seq_len),),
    )  # fmt: skip
    found = []
    for row in range(made.rows_per_epoch):
        (batch,) = (made[row],)
        segments = batch["segments"][0]
        for segment in range(1, segments.max() + 1):
            found.append(batch["tokens"][0][segments == segment].tolist())
    want = [
        split.read(d, 0, min(int(n), 8)).tolist() for d, n in enumerate(split.lengths)
    ]
    assert sorted(found) == sorted(want)
    assert made.rows_per_epoch == 4  # 8 | 8 | 5 + 3 | 2

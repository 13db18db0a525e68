"""Span corruption: the authors' numbers and example, and its exact inverse."""

import numpy as np
import pytest
from rows import EOS, PAD, V, bits, build, random_record, record

from llm import objectives
from llm.errors import InputError
from llm.objectives import span_corruption


def test_published_lengths():
    """T5's own configs: 568 tokens for sources of 512, targets of 114."""
    assert span_corruption.lengths(568, 0.15, 3.0) == (512, 114)
    assert span_corruption.lengths(569, 0.15, 3.0)[0] == 513


def test_the_papers_example():
    text = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last"]
    ids = np.arange(10, dtype=np.int32)
    source, target = span_corruption.corrupt(ids, np.array([[2, 4], [2, 1]]), 101)
    names = dict(enumerate([*text, "week"])) | {101: "<X>", 100: "<Y>"}
    shown = [" ".join(names[i] for i in part) for part in (source, target)]
    assert shown == [
        "Thank you <X> me to your party <Y> week",
        "<X> for inviting <Y> last",
    ]
    restored = span_corruption.restore(source, np.append(target, EOS), vocab_size=90)
    np.testing.assert_array_equal(restored, ids)


@pytest.mark.parametrize("T", [8, 64, 200])
def test_restore_is_the_exact_inverse(T):
    """Every document of every packed row comes back, and all of it fits."""
    of = build("span_corruption")
    kept = documents = 0
    for seed in range(200):
        given = random_record(T, seed)
        made = of.features(given, bits(6, seed))
        tokens, segments = given["tokens"][:-1], given["segments"][:-1]
        for segment in range(1, segments.max() + 1):
            text = tokens[segments == segment]
            source = made["source_tokens"][made["source_segments"] == segment]
            here = made["segments"] == segment
            target, inputs = made["targets"][here], made["tokens"][here]
            documents += len(text) > 0
            assert (len(source) > 0) == (len(target) > 0)
            if not len(source):
                continue
            kept += 1
            assert target[-1] == EOS and inputs[0] == PAD
            np.testing.assert_array_equal(inputs[1:], target[:-1])
            restored = span_corruption.restore(source, target, vocab_size=V)
            np.testing.assert_array_equal(restored, text)
            # Sentinels count down from the last id, the same in source and target.
            marks = [i for i in source if i >= V]
            assert marks == [V + 99 - n for n in range(len(marks))]
            assert marks == [i for i in target if i >= V]
            assert len(marks) and target[0] == V + 99
        for prefix in ("", "source_"):
            s, p = made[f"{prefix}segments"], made[f"{prefix}positions"]
            for t in range(len(s)):
                begins = t == 0 or s[t] != s[t - 1]
                assert p[t] == (0 if begins or not s[t] else p[t - 1] + 1)
        np.testing.assert_array_equal(made["weights"], made["segments"] > 0)
    assert kept > 100 and documents >= kept


def test_share_and_spans():
    of = build("span_corruption")
    noise, spans, free = 0, 0, 0
    for seed in range(300):
        one = np.random.default_rng(seed)
        lengths = one.integers(30, 150, 10)
        given = record(256, lengths, seed)
        made = of.features(given, bits(9, seed))
        tokens = given["tokens"][:-1]
        free += (tokens > EOS).sum()
        noise += ((made["targets"] > EOS) & (made["targets"] < V)).sum()
        spans += (made["targets"] >= V).sum()
    # A few tokens less than 15 %: documents of one or two tokens at the ends of a row.
    assert noise / free == pytest.approx(0.15, abs=0.002)
    assert 3 < noise / spans < 3.7  # fewer and longer where documents need ends


def test_one_document_has_the_authors_numbers():
    of = build("span_corruption")
    given = record(568, [900], seed=3)
    for i in range(20):
        made = of.features(given, bits(i, 0))
        sentinels = made["source_tokens"] >= V
        assert sentinels.sum() == 28 and made["weights"].sum() == 114
        assert (made["source_segments"] > 0).sum() == 511
        # Text comes first, a span last, and no two spans touch.
        assert not sentinels[0] and sentinels[510]
        assert not (sentinels[1:] & sentinels[:-1]).any()


def test_all_ways_to_cut_are_as_likely():
    counts = {}
    for i in range(3000):
        cuts = span_corruption._lengths_of_spans(6, 3, 2, bits(i, 1))
        assert cuts.min() >= 1 and list(cuts.sum(axis=1)) == [3, 3]
        counts[tuple(cuts.ravel())] = counts.get(tuple(cuts.ravel()), 0) + 1
    assert len(counts) == 4 and min(counts.values()) > 750 - 5 * np.sqrt(750 * 0.75)


def test_a_long_row_needs_more_sentinels():
    of = build("span_corruption")
    with pytest.raises(InputError, match=r"sentinels 100 .*seq_len 4096.*want 205"):
        objectives.row_shapes(of, 4096)
    more = build("span_corruption", sentinels=205)
    assert more.extra_tokens == 205
    made = more.features(record(4096, [5000]), bits(0, 0))
    assert (made["source_tokens"] >= V).sum() == 205

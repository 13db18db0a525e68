"""Intervals against scipy's bootstrap, figures against scikit-learn and by hand."""

import numpy as np
import pytest

from llm import metrics


def pairs(values, weights=None):
    weights = np.ones(len(values)) if weights is None else weights
    return list(zip(values, weights, strict=True))


def test_mean_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    x = np.random.default_rng(0).normal(size=200) + 3
    got = metrics.ratio(pairs(x), resamples=20_000)
    want = stats.bootstrap(
        (x,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    assert got.value == pytest.approx(x.mean()) and got.n == 200
    assert got.low == pytest.approx(want.low, abs=0.01)
    assert got.high == pytest.approx(want.high, abs=0.01)


def test_ratio_and_paired_difference_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    weight = rng.integers(1, 50, 150).astype(float)
    one = weight * rng.uniform(1, 2, 150)
    other = one * 0.9 + rng.normal(size=150) * 0.2
    got = metrics.ratio(pairs(one, weight), resamples=20_000)
    want = stats.bootstrap(
        (one, weight), lambda x, w, axis=-1: x.sum(axis) / w.sum(axis), paired=True,
        n_resamples=20_000, method="percentile", rng=1, vectorized=True,
    ).confidence_interval  # fmt: skip
    assert got.low == pytest.approx(want.low, abs=0.01)
    assert got.high == pytest.approx(want.high, abs=0.01)

    got = metrics.difference(pairs(one, weight), pairs(other, weight), resamples=20_000)
    want = stats.bootstrap(
        (one, other, weight),
        lambda x, y, w, axis=-1: (y.sum(axis) - x.sum(axis)) / w.sum(axis),
        paired=True, n_resamples=20_000, method="percentile", rng=1, vectorized=True,
    ).confidence_interval  # fmt: skip
    assert got.value == pytest.approx((other - one).sum() / weight.sum())
    assert got.low == pytest.approx(want.low, abs=0.002)
    assert got.high == pytest.approx(want.high, abs=0.002)
    # What is hard for both does not widen it.
    alone = metrics.ratio(pairs(other, weight))
    assert got.high - got.low < (alone.high - alone.low) / 2


def test_seeds_and_pieces(monkeypatch):
    x = pairs([0.0, 1.0, 1.0, 0.0, 1.0])
    assert metrics.ratio(x) == metrics.ratio(x)
    assert metrics.ratio(x, seed=1)[1:3] == metrics.ratio(x, seed=1)[1:3]
    whole = metrics.ratio(pairs(np.arange(50.0)), resamples=999)
    monkeypatch.setattr(metrics, "_CELLS", 500)  # ten resamples at once
    parts = metrics.ratio(pairs(np.arange(50.0)), resamples=999)
    assert parts.low == pytest.approx(whole.low, abs=1.0)
    # Nine of nine is no certainty: Wilson's interval, 9 / (9 + 1.96 ** 2).
    assert metrics.ratio(pairs([1.0] * 9))[:3] == pytest.approx(
        (1.0, 0.7009, 1.0), abs=1e-4
    )


def test_mapped_figures_rise():
    figure = metrics.Figure(1.0, 0.0, 2.0, 7).mapped(np.exp)
    assert figure[3] == 7
    assert figure[:3] == pytest.approx((np.e, 1.0, np.e**2))


def test_macro_f1_against_sklearn():
    library = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 4, (2, 60))
    said[:30] = truth[:30]
    matrix = library.confusion_matrix(truth, said)
    assert metrics.macro_f1(matrix) == pytest.approx(
        library.f1_score(truth, said, average="macro")
    )
    # A class that never occurs is none; one that is never found counts as zero.
    assert metrics.macro_f1(np.array([[2, 0, 0], [1, 0, 0], [0, 0, 0]])) == (
        pytest.approx((2 * 2 / 5 + 0) / 2)
    )


def test_calibration_by_hand():
    sure = np.array([0.95, 0.91, 0.55, 0.6])
    hit = np.array([1.0, 0.0, 1.0, 1.0])
    # Bin 0.9 to 1: 0.93 sure, half right. Bin 0.5 to 0.6: 0.575 sure, all right.
    want = 0.5 * abs(0.93 - 0.5) + 0.5 * abs(0.575 - 1.0)
    assert metrics.calibration_error(sure, hit) == pytest.approx(want)
    assert metrics.calibration_error(np.ones(3), np.ones(3)) == 0


def test_statistics_of_counts():
    x = np.array([1.0, 2.0, 6.0])
    got = metrics.resampled(lambda n: float((n * x).sum() / n.sum()), 3, resamples=500)
    assert got.value == pytest.approx(3.0) and 1.0 <= got.low < 3.0 < got.high <= 6.0

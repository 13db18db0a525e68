"""Figures with their uncertainty: means of items, and what resampling says of them.

Every figure is a sum over a sum of weights, as losses are: an accuracy has weight 1 an
item, bits per byte the bytes of a text. The interval is that of the percentile
bootstrap (Efron 1979): items are drawn again with replacement, so many times, by a
seed, and 95 % of the figures lie in it. It says how much the choice of items matters,
and nothing of how the model was trained; where all items agree it has no width.

    figure = ratio([(1.0, 1.0), (0.0, 1.0), (1.0, 1.0)])     # 0.667, 0.0 to 1.0
    difference(pairs_of_one, pairs_of_other)                 # the same items in both

`N items, R resamples`
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 2000
_TAIL = 2.5  # percent on each side
_CELLS = 4_000_000  # of counts at once

Pairs = Sequence[tuple[float, float]]


class Figure(NamedTuple):
    """A value, the ends of its 95 % interval, and the items it is made of."""

    value: float
    low: float
    high: float
    n: int

    def mapped(self, function: Callable[[float], float]) -> "Figure":
        """Through a function that rises."""
        return Figure(*map(function, self[:3]), self.n)

    def as_json(self) -> dict[str, Any]:
        """As it stands in results."""
        return {"value": self.value, "interval": [self.low, self.high], "n": self.n}

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"


def ratio(pairs: Pairs, *, resamples: int = RESAMPLES, seed: int = 0) -> Figure:
    """Sum of values over sum of weights, with its interval."""
    x_N2 = _array(pairs)
    drawn_R = np.concatenate(
        [_ratio(counts @ x_N2) for counts in _resampled(len(x_N2), resamples, seed)]
    )
    return _figure(float(_ratio(x_N2.sum(0))), drawn_R, len(x_N2))


def difference(
    one: Pairs, other: Pairs, *, resamples: int = RESAMPLES, seed: int = 0
) -> Figure:
    """What `other` has more than `one`, which are of the same items in the same order:
    both are drawn alike, so that what is hard for both does not widen the interval."""
    x_N2, y_N2 = _array(one), _array(other)
    if len(x_N2) != len(y_N2):
        raise ValueError(f"{len(x_N2)} items and {len(y_N2)}")
    drawn_R = np.concatenate(
        [
            _ratio(counts @ y_N2) - _ratio(counts @ x_N2)
            for counts in _resampled(len(x_N2), resamples, seed)
        ]
    )
    value = float(_ratio(y_N2.sum(0)) - _ratio(x_N2.sum(0)))
    return _figure(value, drawn_R, len(x_N2))


def of_items(figures: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """{name: figure} of the `values` that items carry."""
    names = dict.fromkeys(name for f in figures for name in f["values"])
    return {
        name: ratio([f["values"][name] for f in figures if name in f["values"]])
        for name in names
    }


def resampled(
    statistic: Callable[[np.ndarray], float],
    n: int,
    *,
    resamples: int = 500,
    seed: int = 0,
) -> Figure:
    """Any figure of `n` items, as a function of how often each of them was drawn."""
    drawn_R = np.array(
        [
            statistic(counts_N)
            for counts in _resampled(n, resamples, seed)
            for counts_N in counts
        ]
    )
    return _figure(float(statistic(np.ones(n))), drawn_R, n)


def summary(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Figures as results hold them: {name: value}, with their intervals apart."""
    found: dict[str, Any] = {name: f.value for name, f in figures.items()}
    found["n"] = max((f.n for f in figures.values()), default=0)
    found["interval"] = {name: [f.low, f.high] for name, f in figures.items()}
    return found


def macro_f1(confusion_CC: np.ndarray) -> float:
    """Mean over classes that occur of 2 TP / (2 TP + FP + FN); rows are the truth."""
    hit_C = np.diag(confusion_CC)
    either_C = confusion_CC.sum(0) + confusion_CC.sum(1)
    occurs_C = either_C > 0
    return float((2 * hit_C[occurs_C] / either_C[occurs_C]).mean())


def area_under_roc(score_N: np.ndarray, positive_N: np.ndarray) -> float:
    """How often a positive item scores more than a negative one; ties count half."""
    positive, negative = np.sort(score_N[positive_N]), np.sort(score_N[~positive_N])
    below = np.searchsorted(negative, positive, "left").sum()
    not_above = np.searchsorted(negative, positive, "right").sum()
    return float((below + not_above) / 2 / (len(positive) * len(negative)))


def calibration_error(
    confidence_N: np.ndarray, hit_N: np.ndarray, bins: int = 10
) -> float:
    """Expected calibration error (Guo et al. 2017): how far the confidence of a bin is
    from the share that is right in it, averaged over items."""
    which_N = np.clip(np.ceil(confidence_N * bins).astype(int) - 1, 0, bins - 1)
    gaps = [abs((confidence_N - hit_N)[which_N == b].sum()) for b in range(bins)]
    return float(sum(gaps) / len(confidence_N))


def _array(pairs: Pairs) -> np.ndarray:
    x_N2 = np.asarray(pairs, np.float64).reshape(-1, 2)
    if not len(x_N2):
        raise ValueError("no items")
    return x_N2


def _ratio(sums: np.ndarray) -> np.ndarray:
    weight = sums[..., 1]
    # A draw without any weight has no figure; it is left out below.
    return np.divide(
        sums[..., 0], weight, out=np.full_like(weight, np.nan), where=weight != 0
    )


def _figure(value: float, drawn_R: np.ndarray, n: int) -> Figure:
    drawn_R = drawn_R[np.isfinite(drawn_R)]
    if not len(drawn_R):
        return Figure(value, value, value, n)
    low, high = np.percentile(drawn_R, [_TAIL, 100 - _TAIL])
    return Figure(value, float(low), float(high), n)


def _resampled(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each item is drawn, [some of R, N], float64."""
    rng, done = np.random.default_rng(seed), 0
    while done < resamples:
        rows = min(max(_CELLS // n, 1), resamples - done)
        index = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(index.reshape(-1), minlength=rows * n)
        yield counts.reshape(rows, n).astype(np.float64)
        done += rows

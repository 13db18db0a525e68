"""Figures with their uncertainty: means of items, and what resampling says of them.

Every figure is a sum over a sum of weights, as losses are: an accuracy has weight 1 an
item, bits per byte the bytes of a text. The interval of a share, of items that are 0 or
1, is Wilson's (1927), and of a difference of two shares of the same items Newcombe's
(1998): they hold also where none or all of a few items are right. Any other figure has
that of the percentile bootstrap (Efron 1979): items are drawn again with replacement,
so many times, by a seed, and 95 % of the figures lie in it. It says how much the choice
of items matters, and nothing of how the model was trained.

    figure = ratio([(1.0, 1.0), (0.0, 1.0), (1.0, 1.0)])     # 0.667, 0.208 to 0.939
    difference(pairs_of_one, pairs_of_other)                 # the same items in both

`N items, R resamples`
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 2000
_Z = 1.959964  # standard deviations of a normal in its middle 95 %
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
    if _is_share(x_N2):
        return Figure(
            x_N2[:, 0].mean(), *_wilson(x_N2[:, 0].sum(), len(x_N2)), len(x_N2)
        )
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
    if _is_share(x_N2) and _is_share(y_N2):
        return _newcombe(x_N2[:, 0], y_N2[:, 0])
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


def resampled_difference(
    statistic: Callable[[int, np.ndarray], float],
    n: int,
    *,
    resamples: int = 500,
    seed: int = 0,
) -> Figure:
    """What the second of two runs has more of any figure of the same `n` items, as a
    function of the run, 0 or 1, and of how often each item was drawn."""
    return resampled(
        lambda counts_N: statistic(1, counts_N) - statistic(0, counts_N),
        n, resamples=resamples, seed=seed,
    )  # fmt: skip


def _is_share(x_N2: np.ndarray) -> bool:
    return bool((x_N2[:, 1] == 1).all() and np.isin(x_N2[:, 0], (0, 1)).all())


def _wilson(hits: float, n: int) -> tuple[float, float]:
    """The ends of the 95 % score interval of a share."""
    share, z2 = hits / n, _Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # Without a hit the lower end is 0, which rounding may miss.
    low = 0.0 if hits == 0 else max(middle - half, 0.0)
    return low, 1.0 if hits == n else min(middle + half, 1.0)


def _newcombe(x_N: np.ndarray, y_N: np.ndarray) -> Figure:
    """The difference of two paired shares, by Newcombe's method 10."""
    n, x, y = len(x_N), float(x_N.mean()), float(y_N.mean())
    both = float((x_N * y_N).sum())
    neither = float(((1 - x_N) * (1 - y_N)).sum())
    only_x, only_y = x_N.sum() - both, y_N.sum() - both
    spread = (both + only_x) * (neither + only_y) * (both + only_y) * (neither + only_x)
    product = both * neither - only_x * only_y
    if product > 0:  # corrected for continuity
        product = max(product - n / 2, 0.0)
    phi = product / math.sqrt(spread) if spread else 0.0
    (x_low, x_high), (y_low, y_high) = _wilson(x_N.sum(), n), _wilson(y_N.sum(), n)

    def half(a, b):
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    low = y - x - half(y - y_low, x_high - x)
    high = y - x + half(y_high - y, x - x_low)
    return Figure(y - x, max(low, -1.0), min(high, 1.0), n)


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


def smoothed(y: Sequence[float], span: float) -> list[float]:
    """A moving average over about `span` points around each, fewer at both ends."""
    half, result = int(span) // 2, []
    for i in range(len(y)):
        reach = min(half, i, len(y) - 1 - i)
        near = [v for v in y[i - reach : i + reach + 1] if math.isfinite(v)]
        result.append(sum(near) / len(near) if near else math.nan)
    return result

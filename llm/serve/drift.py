"""Whether what a server is asked, and what it answers, has changed.

Two windows of its log are compared, figure by figure: numbers by the population
stability index over ten bins of the reference (PSI: sum of (p - q) ln(p / q)) and by
the Kolmogorov-Smirnov test; names, such as languages, by PSI and the chi-squared test.
By custom a PSI under 0.1 is no change, one over 0.2 a change that matters. Of small
windows PSI is large by chance, by about (bins - 1)(1 / n + 1 / m), so its threshold is
raised by that; and a figure has drifted only if its test agrees, at 0.1 % over the
number of figures.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from llm.errors import InputError
from llm.serve.request_record import Record

SOME, MUCH = 0.1, 0.2  # thresholds of PSI
_BINS = 10
_LEAST = 20  # records of a window
_ALPHA = 0.001
_FLOOR = 1e-4  # share of an empty bin
NUMBERS = (
    "prompt_tokens",
    "completion_tokens",
    "mean_logprob",
    "fallback_share",
    "latency",
)
NAMES = ("finish_reason", "language")


class Finding(NamedTuple):
    """What became of a figure. `level` is none, some or drift."""

    name: str
    level: str
    psi: float
    threshold: float
    ks: float | None
    p_value: float
    reference: dict[str, Any]
    window: dict[str, Any]


def compare(
    reference: Sequence[Record], window: Sequence[Record]
) -> tuple[list[Finding], list[str]]:
    """Findings, and the figures that a window does not know.

    Raises:
      InputError: a window of too few records.
    """
    for records, what in ((reference, "reference"), (window, "window")):
        if len(records) < _LEAST:
            raise InputError(
                got=f"{len(records)} records in the {what}", want=f"{_LEAST} or more"
            )
    found, missing = [], []
    for name in (*NUMBERS, *NAMES):
        one, other = (
            [v for v in (getattr(r, name) for r in some) if v not in (None, "")]
            for some in (reference, window)
        )
        if min(len(one), len(other)) < _LEAST:
            missing.append(name)
        elif name in NAMES:
            found.append(_names(name, one, other))
        else:
            found.append(_numbers(name, one, other))
    return found, missing


def psi(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Population stability index of shares; an empty bin counts as 0.01 %."""
    p = np.maximum(np.asarray(expected, float), _FLOOR)
    q = np.maximum(np.asarray(actual, float), _FLOOR)
    return float(((q - p) * np.log(q / p)).sum())


def shares(
    reference: Sequence[float], window: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of both in bins that hold about as many of the reference each; equal
    values stay together."""
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1]))
    found = [
        np.bincount(np.searchsorted(edges, x, side="left"), minlength=len(edges) + 1)
        / len(x)
        for x in (np.asarray(reference), np.asarray(window))
    ]
    return found[0], found[1]


def _numbers(name, one, other) -> Finding:
    from scipy import stats

    expected, actual = shares(one, other)
    value, bound = psi(expected, actual), _chance(len(expected), one, other)
    test = stats.ks_2samp(one, other)
    sure = test.pvalue < _ALPHA / len(NUMBERS)
    level = _level(value, bound) if sure else "none"
    return Finding(
        name, level, value, MUCH + bound, float(test.statistic), float(test.pvalue),
        _summary(one), _summary(other),
    )  # fmt: skip


def _names(name, one, other) -> Finding:
    from scipy import stats

    counts = Counter(one), Counter(other)
    keys = sorted({*counts[0], *counts[1]})
    parts = [[c[k] / c.total() for k in keys] for c in counts]
    value, bound = psi(*parts), _chance(len(keys), one, other)
    made = [dict(c.most_common(5)) for c in counts]
    sure, p_value = False, 1.0
    if len(keys) > 1:
        table = [[c[k] for k in keys] for c in counts]
        p_value = float(stats.chi2_contingency(table).pvalue)
        sure = p_value < _ALPHA / len(NAMES)
    level = _level(value, bound) if sure else "none"
    return Finding(name, level, value, MUCH + bound, None, p_value, *made)


def _chance(bins: int, one, other) -> float:
    """What PSI is by chance, and twice its spread."""
    scale = 1 / len(one) + 1 / len(other)
    return scale * (bins - 1 + 2 * math.sqrt(2 * max(bins - 1, 0)))


def _level(value: float, bound: float) -> str:
    if value > MUCH + bound:
        return "drift"
    return "some" if value > SOME + bound else "none"


def _summary(values) -> dict[str, float]:
    low, middle, high = np.percentile(values, [10, 50, 90])
    return {
        "n": len(values),
        "mean": float(np.mean(values)),
        "p10": float(low),
        "median": float(middle),
        "p90": float(high),
    }

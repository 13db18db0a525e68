"""Scaling laws: the loss of a model of N parameters after D tokens, fitted and used.

    L(N, D) = E + A / N^alpha + B / D^beta

(Hoffmann et al. 2022, arXiv:2203.15556, third approach): the least sum of Huber's loss
of errors in log L, from many starts, as the surface has many local minima. How sure a
prediction is comes from fits of runs with other errors of the same size.

    law = fit(runs)
    law.loss(7e9, 1.4e11), law.parameters(1e21)
    low, high = interval(runs, law, 7e9, 1.4e11)
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize

from llm.errors import InputError

LEAST = 6  # runs for five numbers
_DELTA = 1e-3  # of Huber's loss, in nats of log L
_STARTS = tuple(
    itertools.product(
        (-1.0, 0.0, 1.0),  # log E
        (0.0, 5.0, 10.0, 15.0, 20.0),  # log A
        (0.0, 5.0, 10.0, 15.0, 20.0),  # log B
        (0.1, 0.3, 0.6, 1.0),  # alpha
        (0.1, 0.3, 0.6, 1.0),  # beta
    )
)
_POLISHED = 24  # of the starts
_BOUNDS = ((-10.0, 5.0), (-5.0, 40.0), (-5.0, 40.0), (0.01, 3.0), (0.01, 3.0))
_NEAR = 1e-3  # of a bound: where the search was held up


class Run(NamedTuple):
    """A model that was trained: its parameters, its tokens, its final loss in nats."""

    parameters: float
    tokens: float
    loss: float


class Law(NamedTuple):
    """The five numbers of a law."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats a token."""
        return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta

    def tokens(self, parameters: float) -> float:
        """Tokens for which a model of this size is the best use of its 6 N D FLOPs."""
        ratio = self.beta * self.B / (self.alpha * self.A)
        return (ratio * parameters**self.alpha) ** (1 / self.beta)

    def parameters(self, flops: float) -> float:
        """The best model size for so many training FLOPs."""
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (
            1 / (self.alpha + self.beta)
        )
        return ratio * (flops / 6) ** (self.beta / (self.alpha + self.beta))


# As Besiroglu et al. 2024 (arXiv:2404.10102) fitted Chinchilla's runs again; the
# constants first published disagree with those runs.
CHINCHILLA = Law(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)


def fit(runs: Sequence[Run]) -> Law:
    """The law that fits the runs best.

    Raises:
      InputError: too few runs, sizes or token counts for five numbers.
    """
    sizes, spans = {run.parameters for run in runs}, {run.tokens for run in runs}
    if len(runs) < LEAST or len(sizes) < 2 or len(spans) < 2:
        raise InputError(
            got=f"{len(runs)} runs of {len(sizes)} sizes and {len(spans)} lengths",
            want=f"{LEAST} runs or more, of 2 sizes and 2 lengths or more",
        )
    n, d, target = _logs(runs)
    starts = np.array(_STARTS).T
    values = _huber(_predicted(starts, n[:, None], d[:, None]) - target[:, None])
    best = np.argsort(values.sum(0))[:_POLISHED]
    found = [_polished(starts[:, at], n, d, target) for at in best]
    return _law(min(found, key=lambda made: made.fun).x)


def doubts(law: Law) -> str:
    """Why the runs do not determine a law that was fitted to them; '' if they do.

    A search that ends at a bound would have gone on: the numbers are the bound's.
    """
    theta = [*(math.log(max(x, 1e-300)) for x in law[:3]), law.alpha, law.beta]
    held = [
        f"{name} = {value:.3g}"
        for name, value, at, (low, high) in zip(
            law._fields, law, theta, _BOUNDS, strict=True
        )
        if not low + _NEAR < at < high - _NEAR
    ]
    if not held:
        return ""
    return (
        f"the ladder does not determine the law: {', '.join(held)} is where the search "
        "ends; want more sizes and lengths, further apart, before its predictions and "
        "intervals are worth anything"
    )


def interval(
    runs: Sequence[Run],
    law: Law,
    parameters: float,
    tokens: float,
    *,
    share: float = 0.8,
    draws: int = 200,
    seed: int = 0,
) -> tuple[float, float]:
    """Between what a new run's loss will lie, with a chance of `share`.

    Normal errors in log L, as large as the residuals for the freedom that five fitted
    numbers leave, are drawn for each run, the law is fitted again, and one more error
    is added to its prediction.
    """
    n, d, target = _logs(runs)
    low, high = np.array(_BOUNDS).T
    start = np.clip([*np.log(law[:3]), law.alpha, law.beta], low, high)
    fitted = _predicted(start, n, d)
    freedom = max(1, len(runs) - len(law))
    spread = math.sqrt(((target - fitted) ** 2).sum() / freedom)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        *errors, last = spread * rng.standard_normal(len(runs) + 1)
        again = _law(_polished(start, n, d, fitted + errors).x)
        found.append(again.loss(parameters, tokens) * math.exp(last))
    low, high = np.quantile(found, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def _logs(runs):
    """Logarithms of N, D and L."""
    return np.log(np.array([tuple(run) for run in runs], float)).T


def _predicted(theta, n, d):
    """log L, of log N and log D; theta is (log E, log A, log B, alpha, beta)."""
    e, a, b, alpha, beta = theta
    terms = np.logaddexp(a - alpha * n, b - beta * d)
    return np.logaddexp(e, terms)


def _huber(errors):
    size = np.abs(errors)
    return np.where(size < _DELTA, size**2 / 2, _DELTA * (size - _DELTA / 2))


def _polished(start, n, d, target):
    """L-BFGS from a start, with the gradient written out."""

    def value(theta):
        predicted = _predicted(theta, n, d)
        slope = np.clip(predicted - target, -_DELTA, _DELTA)
        e, a, b, alpha, beta = theta
        shares = np.exp(
            np.stack([np.full_like(n, e), a - alpha * n, b - beta * d]) - predicted
        )
        partial = np.stack([*shares, -n * shares[1], -d * shares[2]])
        scale = 1 / _DELTA**2  # near 1, as L-BFGS wants it
        return scale * _huber(predicted - target).sum(), scale * partial @ slope

    return optimize.minimize(
        value, start, jac=True, method="L-BFGS-B", bounds=_BOUNDS,
        options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-12, "gtol": 1e-9},
    )  # fmt: skip


def _law(theta) -> Law:
    e, a, b, alpha, beta = map(float, theta)
    return Law(math.exp(e), math.exp(a), math.exp(b), alpha, beta)

"""Logistic regression on sparse rows: its exact optimum, and calibrated margins.

    minimise  sum_i s_i log(1 + exp(-y_i (w . x_i + b))) / sum_i s_i  +  l2 |w|^2 / 2

The optimum is unique, so there is no order of rows, no learning rate and no seed in it:
L-BFGS (Nocedal and Wright 2006, algorithm 7.4) goes there with whole passes over the
rows. Margins become probabilities by Platt's method (1999), with the targets and the
Newton steps of Lin, Lin and Weng (2007), on rows that were not fitted.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_BLOCK = 1 << 21  # entries at once, so that what is made on the way stays small
_MEMORY = 8  # steps that the curvature is read from
_STEPS = 500
_HALVINGS = 40


class Rows(NamedTuple):
    """Sparse rows: row i has the entries start[i] to start[i + 1].

    Attributes:
      start: int64 [rows + 1].
      index: int32 [entries], columns; each once in a row.
      value: float32 [entries].
    """

    start: np.ndarray
    index: np.ndarray
    value: np.ndarray

    def times(self, weights: np.ndarray) -> np.ndarray:
        """The product with a vector, a number a row: float64 [rows]."""
        made = np.zeros(len(self.start) - 1)
        for rows, entries in self._blocks():
            product = weights[self.index[entries]] * self.value[entries]
            begins, ends = self.start[rows][:-1], self.start[rows][1:]
            filled = ends > begins
            if filled.any():
                at = begins[filled] - entries.start
                made[rows.start : rows.stop - 1][filled] = np.add.reduceat(product, at)
        return made

    def back(self, of_rows: np.ndarray, columns: int) -> np.ndarray:
        """The product of the transpose with a number a row: float64 [columns]."""
        made = np.zeros(columns)
        for rows, entries in self._blocks():
            each = np.repeat(
                of_rows[rows.start : rows.stop - 1], np.diff(self.start[rows])
            )
            made += np.bincount(
                self.index[entries], self.value[entries] * each, minlength=columns
            )
        return made

    def _blocks(self):
        """(rows with the one after them, their entries), of about a block each."""
        first, last = 0, len(self.start) - 1
        while first < last:
            end = int(np.searchsorted(self.start, self.start[first] + _BLOCK, "right"))
            end = min(max(end - 1, first + 1), last)
            entries = slice(int(self.start[first]), int(self.start[end]))
            yield slice(first, end + 1), entries
            first = end


def fit(
    rows: Rows,
    positive: np.ndarray,
    *,
    columns: int,
    l2: float,
    tolerance: float = 1e-2,
) -> tuple[np.ndarray, float]:
    """The weights and the bias at the optimum.

    Both classes count the same in all, however many rows they have: a probability of
    one half is that of a text which either could have.

    Args:
      positive: bool [rows]; neither all nor none.
      tolerance: length of the gradient, as a share of that at zero, to stop at.
    """
    # Only columns that occur move: with 2^20 of them and few rows, most do not.
    occurs = np.zeros(columns, bool)
    occurs[rows.index] = True
    used = np.flatnonzero(occurs)
    place = (np.cumsum(occurs) - 1).astype(np.int32)
    rows = rows._replace(index=place[rows.index])
    sign = np.where(positive, 1.0, -1.0)
    share = np.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum())

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (rows.times(x[:-1]) + x[-1])
        of_rows = -share * sign * _sigmoid(-margin)
        slope = np.append(rows.back(of_rows, len(used)) + l2 * x[:-1], of_rows.sum())
        value = _dot(share, np.logaddexp(0.0, -margin)) + l2 / 2 * _dot(x[:-1], x[:-1])
        return value, slope

    found = minimise(loss, np.zeros(len(used) + 1), tolerance)
    weights = np.zeros(columns)
    weights[used] = found[:-1]
    return weights, float(found[-1])


def minimise(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]],
    x: np.ndarray,
    tolerance: float,
) -> np.ndarray:
    """Where a convex function, given with its gradient, is least (L-BFGS)."""
    value, slope = loss(x)
    least = tolerance * _size(slope)
    pairs: deque = deque(maxlen=_MEMORY)
    for _ in range(_STEPS):
        if _size(slope) <= least:
            break
        direction = _direction(slope, pairs)
        down = _dot(slope, direction)
        size = 1.0 if pairs else 1.0 / _size(slope)
        for _ in range(_HALVINGS):
            new_value, new_slope = loss(x + size * direction)
            if new_value <= value + 1e-4 * size * down:
                break
            size /= 2
        else:
            break  # no lower value that floats can tell apart
        step, turn = size * direction, new_slope - slope
        bend = _dot(step, turn)
        if bend > 1e-12 * _dot(turn, turn):
            pairs.append((step, turn, 1.0 / bend))
        x, value, slope = x + step, new_value, new_slope
    return x


def _direction(slope: np.ndarray, pairs: deque) -> np.ndarray:
    """Minus the approximate inverse Hessian times the gradient: two loops."""
    made, shares = -slope, []
    for step, turn, inverse in reversed(pairs):
        shares.append(inverse * _dot(step, made))
        made = made - shares[-1] * turn
    if pairs:
        _, turn, inverse = pairs[-1]
        made = made / (inverse * _dot(turn, turn))
    for (step, turn, inverse), share in zip(pairs, reversed(shares), strict=True):
        made = made + (share - inverse * _dot(turn, made)) * step
    return made


def calibrate(margin: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """(scale, shift): sigmoid(scale * margin + shift) is the probability.

    Both classes count the same, as in `fit`. Without one of the classes, or where
    margins say nothing or the opposite, they stay as they are.
    """
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return 1.0, 0.0
    target = np.where(positive, (n + 1) / (n + 2), 1 / (m + 2))
    share = np.where(positive, 0.5 / n, 0.5 / m)
    x = np.stack([margin, np.ones(len(margin))])

    def loss(at: np.ndarray) -> float:
        z = at @ x
        return float(share @ (np.logaddexp(0.0, z) - target * z))

    at = np.array([1.0, 0.0])
    for _ in range(100):
        p = _sigmoid(at @ x)
        slope = x @ (share * (p - target))
        if np.abs(slope).max() < 1e-10:
            break
        bend = (x * (share * p * (1 - p))) @ x.T + 1e-12 * np.eye(2)
        step, size, before = np.linalg.solve(bend, -slope), 1.0, loss(at)
        while size > 1e-10 and loss(at + size * step) > before + 1e-4 * size * (
            slope @ step
        ):
            size /= 2
        if size <= 1e-10:
            break
        at = at + size * step
    return (float(at[0]), float(at[1])) if at[0] > 0 else (1.0, 0.0)


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    """In one order of the sum: BLAS has another for each number of threads."""
    return float(np.einsum("i,i", a, b))


def _size(a: np.ndarray) -> float:
    return float(np.sqrt(_dot(a, a)))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))

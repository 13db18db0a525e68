"""What a run with a growing learning rate says: where it learns, and where no more.

Smith's test (arXiv:1506.01186): the rate grows by the same share every step; the loss
falls once the rate is large enough, is lowest where it is about too large, and then
rises. A rate somewhat below the lowest point is a good peak.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from llm import metrics

_SPAN = 0.05  # of the run that is averaged over
_RISEN = 0.1  # of the fall that is lost again
_CLEAR = 6  # deviations of an average, which a fall must exceed


class Found(NamedTuple):
    """Learning rates, from low to high.

    Attributes:
      steepest: where the loss falls fastest.
      lowest: where it is lowest.
      limit: where a tenth of the fall is lost again; None where that never was.
    """

    steepest: float
    lowest: float
    limit: float | None

    @property
    def suggested(self) -> float:
        """A third of `lowest`, or `steepest` if that is more."""
        return max(self.lowest / 3, min(self.steepest, self.lowest))

    @property
    def why(self) -> str:
        """Which of the two `suggested` is."""
        third = self.suggested == self.lowest / 3
        return "a third of the lowest" if third else "where it falls fastest"


def smoothed(losses: Sequence[float]) -> list[float]:
    """A moving average that looks back and forth alike, as far as values are finite."""
    finite = next((n for n, v in enumerate(losses) if not math.isfinite(v)), None)
    return metrics.smoothed(losses[:finite], _span(losses))


def _span(losses: Sequence[float]) -> float:
    return max(3, _SPAN * len(losses))


def find(rates: Sequence[float], losses: Sequence[float]) -> Found | None:
    """The rates that matter; None where the loss never fell."""
    y = smoothed(losses)
    if len(y) < 10:
        return None
    low = min(range(len(y)), key=y.__getitem__)
    fall = max(y[: low + 1]) - y[low]
    off = [a - b for a, b in zip(losses, y, strict=False)][: low + 1]
    noise = math.hypot(*off) / math.sqrt(len(off) * _span(losses))
    if low == 0 or fall <= _CLEAR * noise:
        return None
    reach = max(1, round(_SPAN * len(y) / 2))
    slopes = {n: y[n + reach] - y[n - reach] for n in range(reach, len(y) - reach)}
    steepest = min((n for n in slopes if n <= low), key=slopes.__getitem__, default=low)
    risen = (n for n in range(low, len(y)) if y[n] > y[low] + _RISEN * fall)
    limit = next(risen, None)
    if limit is None and len(y) < len(losses):
        limit = len(y)  # it ended in numbers that are not finite
    return Found(
        steepest=rates[steepest],
        lowest=rates[low],
        limit=None if limit is None else rates[limit],
    )

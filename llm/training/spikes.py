"""Loss spikes: steps that are too far off to learn from.

Long runs meet batches, or states, that throw them back by days (Chowdhery et al. 2022,
2204.02311, section 5.1). A step is a spike if its loss or the norm of its gradient is
not finite, or lies further above the median of the steps before it than `SIGMAS` of
their deviations (1.4826 times the median one, which a few outliers do not move).

The device decides, by bounds that it is given, and keeps the state as it was; so what
the host learns a step later is never too late. The bounds of step s come from steps up
to s - 2, as the host has read no more when s begins, whether a run goes on without a
break or from a checkpoint: then both skip the same steps.

Weights can also be ruined by a step that looked well. The steps after it are spikes,
so a state is not known to be good before a step after its last spike is learned, and
where nothing was learned between two spikes the step learned before them is suspected.

    limits = spikes.limits(loop, at, policy)        # for the step function
    verdict = spikes.judge(loop, at, metrics)       # when its metrics are read
"""

import enum
import math
import statistics
from typing import NamedTuple

from llm.checkpoint import LoopState

POLICIES = ("off", "skip", "rollback")
WINDOW, SIGMAS = 128, 10.0
_LEAST = 16  # steps before anything but what is not finite is a spike
MOST = 10  # spikes in a window that are passed over; more is no accident
_READ = 2  # steps back that the host knows


class Bounds(NamedTuple):
    """The largest loss and gradient norm to learn from."""

    objective: float
    grad_norm: float


NOTHING = Bounds(-math.inf, -math.inf)  # is below it: the step is skipped
FINITE = Bounds(math.inf, math.inf)


class Verdict(enum.Enum):
    """What became of a step."""

    LEARNED = "learned"
    REPEATED = "skipped again, after a rollback or a restart"
    SPIKE = "a spike"
    NOT_FINITE = "not finite, and learned"


def limits(loop: LoopState, at: int, policy: str) -> Bounds | None:
    """The bounds of a step; None where the run ends at what is not finite."""
    return None if policy == "off" else bounds(loop, at)


def bounds(loop: LoopState, at: int) -> Bounds:
    """Those of a step, from what the loop remembers."""
    if at in loop.skipped:
        return NOTHING
    known = [seen for seen in loop.recent if seen[0] <= at - _READ]
    if len(known) < _LEAST:
        return FINITE
    _, losses, norms = zip(*known[-WINDOW:], strict=True)
    return Bounds(_above(losses), _above(norms))


def judge(loop: LoopState, at: int, metrics: dict[str, float]) -> Verdict:
    """The verdict on a step whose metrics are known; changes nothing."""
    if metrics.get("skipped"):
        return Verdict.REPEATED if at in loop.skipped else Verdict.SPIKE
    if all(math.isfinite(metrics[name]) for name in Bounds._fields):
        return Verdict.LEARNED
    return Verdict.NOT_FINITE


def note(loop: LoopState, at: int, metrics: dict[str, float]) -> None:
    """Remembers a step that was learned from."""
    loop.recent.append([at, metrics["objective"], metrics["grad_norm"]])
    del loop.recent[: -(WINDOW + _READ)]


def suspect(loop: LoopState, at: int) -> int:
    """The step learned last before a spike, if only spikes lie between; else 0."""
    skipped, before = set(loop.skipped), at - 1
    while before in skipped:
        before -= 1
    return before if before < at - 1 else 0


def skip(loop: LoopState, *steps: int) -> None:
    """Leaves steps out from now on."""
    loop.skipped = sorted({*loop.skipped, *steps})


def too_many(loop: LoopState, at: int) -> bool:
    """Whether the steps that were skipped lately are more than accidents."""
    return sum(step > at - WINDOW for step in loop.skipped) > MOST


def _above(values: tuple[float, ...]) -> float:
    middle = statistics.median(values)
    spread = 1.4826 * statistics.median(abs(x - middle) for x in values)
    # Where all are alike, rounding is no spike.
    return middle + SIGMAS * max(spread, 0.01 * abs(middle))

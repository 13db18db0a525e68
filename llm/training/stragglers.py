"""Which of several processes the others wait for.

In a step that all do together, each takes as long as the slowest; what tells them apart
is what a process does alone, which is to wait for its next batch: a slow disk, a busy
host. Where that is most of a step, and the others do not wait so, they wait for it.

    waits = Waits()
    with waits:                                  # around the next batch
        batch = next(stream)
    waits.of_each()                              # seconds a step, of each process
"""

import statistics
import time
from collections.abc import Sequence

from llm import distributed

_SHARE = 0.3  # of a step
_TIMES = 3.0  # as long as the others


class Waits:
    """Seconds that this process waited since they were last asked for."""

    def __init__(self, clock=time.perf_counter):
        self._clock, self._began = clock, 0.0
        self.restart()

    def restart(self) -> None:
        """Forgets what was: the first batch also waits for what makes batches."""
        self._seconds, self._count = 0.0, 0

    def __enter__(self) -> "Waits":
        self._began = self._clock()
        return self

    def __exit__(self, *exception) -> None:
        self._seconds += self._clock() - self._began
        self._count += 1

    def of_each(self) -> list[float]:
        """Means since the last time, by process; all processes must ask at once."""
        mean = self._seconds / max(self._count, 1)
        self.restart()
        return distributed.gathered(mean)


def behind(waits: Sequence[float], step_seconds: float) -> int | None:
    """The process that the others wait for, or None."""
    if len(waits) < 2:
        return None
    slowest = max(range(len(waits)), key=waits.__getitem__)
    others = statistics.median(w for n, w in enumerate(waits) if n != slowest)
    far = waits[slowest] > max(_TIMES * others, _SHARE * step_seconds)
    return slowest if far else None

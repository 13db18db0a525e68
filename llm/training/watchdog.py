"""Ends a training that hangs: one step takes many times as long as the others.

A chip that fails, a host that is gone, or a deadlock leaves a run waiting for ever, and
costs as if it worked. A thread looks at the time since the last step; when that is more
than `times` the median step, and more than `least` seconds, it writes the stacks of all
threads and ends the process with exit code 76, so that what started the run can start
it again from its checkpoint. The same is done after `longest` seconds without a sign of
life where there is no median to go by: before the first steps, of which one compiles,
and in a validation or checkpoint.

    with Watchdog(workdir, times=50.0, longest=3600.0) as watchdog:
        for ...:
            watchdog.beat(step)
            with watchdog.pause():          # a validation: not a step
                watchdog.alive()            # a batch of it is done
"""

import collections
import contextlib
import faulthandler
import math
import os
import pathlib
import statistics
import sys
import threading
import time
from collections.abc import Iterator

HUNG = 76  # exit code
_STEPS = 101  # whose median is what a step takes
_FEW = 5  # steps before there is a median
_LOOK = 1.0  # seconds between looks


class Watchdog:
    """Watches from the moment when it is made.

    Args:
      times: of the median step; 0 allows a step any.
      longest: seconds of silence where there is no median; 0 allows any.
      step: the last one that is done.
      process: which of several this is; each writes stacks of its own.
      least: seconds, so that short steps may wait for a busy machine.
      clock, end: the monotonic time, and what ends the process with a code.
    """

    def __init__(
        self,
        workdir: str,
        *,
        times: float,
        longest: float = 0.0,
        step: int = 0,
        process: int = 0,
        least: float = 120.0,
        clock=time.monotonic,
        end=os._exit,
    ):
        self._workdir, self._times, self._least = workdir, times, least
        self._clock, self._end = clock, end
        self._who = f"-process-{process}" if process else ""
        self._steps: collections.deque[float] = collections.deque(maxlen=_STEPS)
        self._longest = longest or math.inf
        self._step, self._last, self._paused = step, None, 0
        self._alive = clock()
        self._lock, self._done = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def beat(self, step: int) -> None:
        """A step is done."""
        with self._lock:
            now = self._clock()
            if self._last is not None:
                self._steps.append(now - self._last)
            self._step, self._last, self._alive = step, now, now

    def alive(self) -> None:
        """Something is done that is no step."""
        with self._lock:
            self._alive = self._clock()

    @contextlib.contextmanager
    def pause(self, step: int | None = None) -> Iterator[None]:
        """What happens in it, after this step, is no part of a step."""
        with self._lock:
            self._step = self._step if step is None else step
            self._paused += 1
            began = self._alive = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._paused -= 1
                self._alive = self._clock()
                if self._last is not None:
                    self._last += self._alive - began

    def look(self, asleep: float = 0.0) -> bool:
        """Ends the process if a step takes too long, and says whether it did.

        Args:
          asleep: seconds that this process itself did not run (Ctrl-Z, a laptop's lid):
            no step could be done in them.
        """
        with self._lock:
            self._alive += asleep
            if self._last is not None and not self._paused:
                self._last += asleep
            said = self._hangs()
            if not said:
                return False
            step = self._step + 1
        path = pathlib.Path(self._workdir) / f"hang-{step}{self._who}.txt"
        with contextlib.suppress(OSError), path.open("w", encoding="utf-8") as file:
            faulthandler.dump_traceback(file)
        print(
            f"llm: {said}: it hangs; the stacks are in {path}; "
            "run the same command again to resume",
            file=sys.stderr,
            flush=True,
        )
        self._end(HUNG)
        return True

    def _hangs(self) -> str:
        """What takes too long, or ''."""
        now, step = self._clock(), self._step + 1
        if self._paused or len(self._steps) < _FEW:
            silent = now - self._alive
            if silent <= self._longest:
                return ""
            what = f"what follows step {self._step}" if self._step else "the start"
            what = what if self._paused else f"step {step}"
            return f"{what} takes {silent:.0f} s without a sign of life"
        waited, median = now - self._last, statistics.median(self._steps)
        if not self._times or waited <= max(self._least, self._times * median):
            return ""
        return f"step {step} takes {waited:.0f} s, the median step {median:.2f} s"

    def _watch(self) -> None:
        before = self._clock()
        while not self._done.wait(_LOOK):
            now = self._clock()
            # Where this thread itself did not run, neither did the others.
            asleep = max(now - before - 5 * _LOOK, 0.0)
            before = now
            if self.look(asleep):
                return

    def __enter__(self) -> "Watchdog":
        if self._times or self._longest < math.inf:
            self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._done.set()

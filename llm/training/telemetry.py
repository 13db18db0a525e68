"""What watches a training and what it reports: one object beside the loop.

The log and the console, speed and goodput, the watchdog, the profiler, signals and
notices of preemption. The loop says where it is; nothing here changes what is learned.

    with Telemetry(knobs, loop, first, writer=writer, console=console, wall=wall) as t:
        batch = t.next_batch(stream)
        t.before_step(at)
        ...
        t.after_step(at, metrics)
        t.log(at, values, {}, learning_rate)
"""

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import jax

from llm import distributed
from llm.checkpoint import LoopState
from llm.training import stragglers
from llm.training.goodput import Wall
from llm.training.metric_writer import Console, MetricWriter, StepTimer
from llm.training.preemption import Notices
from llm.training.profiling import Profiler
from llm.training.signals import StopRequest
from llm.training.train_step import Knobs
from llm.training.watchdog import Watchdog

_MEET_EVERY = 4  # steps after which several processes ask each other whether to stop


class Telemetry:
    """Use it as a context manager around the loop.

    Args:
      first: the step that the loop begins after.
      wall: learns of each logged step, of the first moment and of the last.
    """

    def __init__(
        self, knobs: Knobs, loop: LoopState, first: int, *, writer: MetricWriter,
        console: Console, wall: Wall,
    ):  # fmt: skip
        self._knobs, self._loop, self._first = knobs, loop, first
        self._writer, self._console, self._wall = writer, console, wall
        self._seconds_before = loop.seconds
        self._accounted = first  # the last step whose time is in `loop`
        self._timer = StepTimer(knobs.steps, first)
        self._input = stragglers.Waits()
        self._watchdog = Watchdog(
            writer.workdir,
            times=knobs.watchdog,
            longest=knobs.watchdog_longest,
            step=first,
            process=jax.process_index(),
        )
        self._profiler = Profiler(writer.workdir, *knobs.profile, say=self.message)
        self._stop = StopRequest()
        self._preemption = Notices(knobs.notices, self._preempted)
        self._entered = contextlib.ExitStack()

    def __enter__(self) -> "Telemetry":
        for watcher in (
            self._stop, self._preemption, self._watchdog, _garbage_in_pauses(),
            contextlib.closing(self._profiler), contextlib.closing(self._wall),
        ):  # fmt: skip
            self._entered.enter_context(watcher)
        if self._first < self._knobs.steps and not self._loop.stopped_early:
            self._wall.note()
        return self

    def __exit__(self, *exception) -> None:
        self._entered.__exit__(*exception)

    # Around a step.

    def next_batch(self, stream: Iterator[dict]) -> dict:
        """The next batch; the wait for it is measured."""
        with self._input:
            return next(stream)

    def before_step(self, at: int) -> None:
        """Call it before a step is dispatched."""
        self._profiler.before(at)

    def after_step(self, at: int, metrics: dict[str, jax.Array]) -> None:
        """Call it after a step is dispatched, with what it makes."""
        with self._watchdog.pause():
            self._profiler.after(at, metrics)
        if at == self._first + 1:
            jax.block_until_ready(metrics)  # compilation is not speed
            self._timer.restart(at, at * self._knobs.tokens_per_step)
            self._input.restart()
            self._accounted = at

    def beat(self, at: int) -> None:
        """A step is done: its metrics are read."""
        self._watchdog.beat(at)
        self._wall.note()

    def alive(self) -> None:
        """Something is done that is no step, such as a batch of a validation."""
        self._watchdog.alive()

    @contextlib.contextmanager
    def pause(self, at: int) -> Iterator[None]:
        """Leaves a validation or checkpoint out of the speed; a time to clean up."""
        with self._timer.pause(), self._watchdog.pause(at):
            gc.collect()
            yield
        self._wall.note()

    def unwatched(self) -> contextlib.AbstractContextManager:
        """Around what is no part of a step and may take long."""
        return self._watchdog.pause()

    # The log.

    def account(self, at: int) -> None:
        """Ends a stretch of steps: the share that was learned counts as productive."""
        loop, before = self._loop, self._accounted
        skipped = sum(before < step <= at for step in loop.skipped)
        loop.productive += self._timer.worked() * (1 - skipped / max(at - before, 1))
        loop.seconds = self._seconds_before + self._timer.seconds
        self._accounted = at

    def progress(self, at: int) -> None:
        """Moves the bar of a step that is not logged."""
        self._console.progress(at)

    def log(
        self, at: int, metrics: dict[str, float], extra: dict[str, Any],
        learning_rate: Callable[[int], float],
    ) -> None:  # fmt: skip
        """Writes the record of a step, whose time is accounted for."""
        knobs, loop = self._knobs, self._loop
        lap = self._timer.lap(at, at * knobs.tokens_per_step)
        record = _record(at, metrics, lap, knobs, learning_rate) | extra
        record["seconds"] = loop.seconds
        record["wall_seconds"] = self._wall.seconds
        record["goodput"] = self._wall.share(loop.productive)
        inputs = self._input.of_each()
        record["input_s"] = max(inputs)
        late = stragglers.behind(inputs, 1 / max(lap.steps_per_s, 1e-9))
        if late is not None and late != loop.late:
            self.event(at, "straggler", f"process {late} waits {inputs[late]:.2f} s a "
                       "step for its batch, and the others for it")  # fmt: skip
        loop.late = late
        self._writer.write(record)
        self._console.log(record)

    def event(self, at: int, kind: str, message: str) -> None:
        """Keeps what happened at a step, and shows it."""
        self._loop.events.append({"step": at, "event": kind, "message": message})
        self.message(f"step {at}: {message}")

    def message(self, text: str) -> None:
        """Shows a line."""
        self._console.message(text)

    def rewind(self, at: int) -> None:
        """The run went back to a step: the log ends there, and speed begins anew."""
        self._accounted = at
        self._writer.rewind(at)
        self._timer.restart(at, at * self._knobs.tokens_per_step)

    # The end.

    def stop_requested(self, at: int, last: bool) -> str:
        """The signal that asks to stop; all processes meet, and take the same."""
        if jax.process_count() > 1 and not last and at % _MEET_EVERY:
            return ""
        return distributed.agreed(self._stop.requested, StopRequest.KNOWN)

    def close(self) -> None:
        """Ends the trace and the log of a run that stops early."""
        self._profiler.close()
        self._writer.close()
        self._console.close()

    def _preempted(self, notice: str) -> None:
        self.message(f"preemption notice for this machine: {notice}")
        self._stop.ask()


def _record(at, metrics, lap, knobs, learning_rate) -> dict[str, Any]:
    tokens = at * knobs.tokens_per_step
    # The first step of a process compiles and has no speed.
    rate = lap.tokens_per_s or None
    flops = rate * knobs.flops_per_token if rate else None
    return {
        "step": at,
        **metrics,
        "learning_rate": float(learning_rate(at - 1)),
        "tokens": tokens,
        "epoch": tokens / knobs.tokens_per_epoch if knobs.tokens_per_epoch else 0.0,
        "tokens_per_s": rate,
        "model_flops_per_s": flops,
        "mfu": flops / knobs.peak_flops if flops and knobs.peak_flops else None,
        "eta_s": lap.eta_s if rate else None,
    }


@contextlib.contextmanager
def _garbage_in_pauses() -> Iterator[None]:
    """Leaves cyclic garbage to `gc.collect` in pauses: elsewhere its collection stops
    a step, and with it all hosts that wait for this one."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()

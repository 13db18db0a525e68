"""Who gets a slot next, and what happens to those who leave: host logic alone.

Requests wait in a queue for each client. The next free slot goes to the client that
has been given the fewest tokens so far (virtual token counters, arXiv:2401.00588), so a
client with a thousand requests delays one with a single request by one slot's time. A
client that comes back after a pause starts level with those that are being served.

One thread, `run`, owns the slots; others `submit` and `cancel`. Whatever happens to a
request, its slot is freed and its `finish` is called, once: at its end, when it is
cancelled, when its time is over, when the engine fails, and when the server closes.

    scheduler = Scheduler(slots)
    threading.Thread(target=scheduler.run).start()
    scheduler.submit(job)
"""

import collections
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

_PROMPT_TOKENS = 512  # read at most between two pieces of those who are served


class Refused(Exception):
    """A request that is not taken: 429 too many wait, 503 the server closes."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(eq=False)
class Job:
    """A request, as the scheduler sees it.

    Attributes:
      client: whom its tokens are counted for.
      task: what a slot is to do.
      take: given each piece of tokens and whether it is the last; returns the reason
        to stop here, or ''.
      finish: called at the end with a reason: stop, length, or what `take` said; or
        cancelled, timeout, failed, closed.
      deadline: seconds of the clock after which it is given up; 0 is never.
      score: whether the prompt's likelihoods are wanted; they come to `scored` first.
    """

    client: str
    task: Any
    take: Callable[[Any, bool], str]
    finish: Callable[[str], None]
    deadline: float = 0.0
    score: bool = False
    scored: Callable[[Any], None] = lambda scores: None
    cancelled: bool = False
    started: float = 0.0
    since: float = 0.0


class Scheduler:
    """See the module docstring.

    Attributes:
      failed: why the loop ended, if it ended by itself.
    """

    def __init__(
        self,
        slots: Any,
        *,
        most_waiting: int = 256,
        most_of_client: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._slots, self._clock = slots, clock
        self._most_waiting, self._most_of_client = most_waiting, most_of_client
        self._waiting: dict[str, collections.deque[Job]] = {}
        self._running: dict[int, Job] = {}
        self._given: dict[str, int] = {}
        self._changed = threading.Condition()
        self._draining = self._closed = False
        self.failed = ""

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return sum(map(len, self._waiting.copy().values()))

    @property
    def running(self) -> int:
        """Requests in slots."""
        return len(self._running)

    @property
    def draining(self) -> bool:
        """Whether new requests are refused."""
        return self._draining

    def submit(self, *jobs: Job) -> None:
        """Queues requests, all or none; Refused where there is no room for them."""
        with self._changed:
            if self._draining or self._closed:
                raise Refused(503, "the server is closing")
            client = jobs[0].client
            queue = self._waiting.get(client, ())
            room = min(
                self._most_waiting - self.waiting, self._most_of_client - len(queue)
            )
            free = self._slots.count - len(self._running) if not self.waiting else 0
            if len(jobs) > room + free:
                raise Refused(
                    429, f"{self.waiting} requests wait already, {len(queue)} of yours"
                )
            if client not in self._active():
                least = min((self._given[c] for c in self._active()), default=0)
                self._given[client] = max(self._given.get(client, 0), least)
            now = self._clock()
            for job in jobs:
                job.since = now
            self._waiting.setdefault(client, collections.deque()).extend(jobs)
            self._changed.notify()

    def cancel(self, *jobs: Job) -> None:
        """Gives requests up; harmless where they are over."""
        with self._changed:
            for job in jobs:
                job.cancelled = True
            self._changed.notify()

    def drain(self) -> None:
        """Refuses new requests from now on; those that are in go on."""
        with self._changed:
            self._draining = True
            self._changed.notify()

    def wait_idle(self, seconds: float) -> bool:
        """Waits until nothing is left to do; False where that takes longer."""
        end = time.monotonic() + seconds
        while self._waiting or self._running:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def close(self) -> None:
        """Ends the loop; what is not done is given up."""
        with self._changed:
            self._draining = self._closed = True
            self._changed.notify()

    def run(self) -> None:
        """Serves until closed."""
        try:
            while not self._closed:
                with self._changed:
                    while not (self._closed or self._running or self._waiting):
                        self._changed.wait()
                if not self._closed:
                    self.tick()
        except BaseException as error:
            self.failed = f"{type(error).__name__}: {error}"
            raise
        finally:
            with self._changed:
                self._draining = self._closed = True
                left = [*self._running.values(), *self._all_waiting()]
                self._running, self._waiting = {}, {}
            for job in left:
                job.finish("failed" if self.failed else "closed")

    def tick(self) -> None:
        """Drops who left, fills free slots, and goes on with all for a piece."""
        self._drop()
        try:
            self._admit()
            if self._running:
                self._go_on()
        except jax.errors.JaxRuntimeError as error:  # such as memory that is used up
            with self._changed:
                jobs, self._running = list(self._running.values()), {}
            self._slots.reset()
            for job in jobs:
                job.finish("failed")
            told = str(error).splitlines()[0]
            print(f"llm: {len(jobs)} requests failed: {told}", file=sys.stderr)

    def _drop(self) -> None:
        now = self._clock()

        def over(job):
            late = job.deadline and now > job.deadline
            return "cancelled" if job.cancelled else "timeout" if late else ""

        gone = []
        with self._changed:
            for client, queue in list(self._waiting.items()):
                gone += [(job, over(job)) for job in queue if over(job)]
                kept = collections.deque(job for job in queue if not over(job))
                self._waiting[client] = kept
                if not kept:
                    del self._waiting[client]
        for slot, job in list(self._running.items()):
            if over(job):
                gone.append((self._free(slot), over(job)))
        for job, reason in gone:
            job.finish(reason)

    def _admit(self) -> None:
        """Reads prompts for free slots, but not too many before the next tokens."""
        budget = _PROMPT_TOKENS
        for slot in self._slots.free():
            with self._changed:
                job = self._next()
                if job is None:
                    return
                self._given[job.client] += len(job.task.ids)
                self._running[slot] = job
            job.started = self._clock()
            if job.score:
                job.scored(self._slots.score(job.task.ids))
            if job.task.max_tokens > 0:
                self._slots.start(slot, job.task)
            else:
                self._end(slot, "length")
            budget -= len(job.task.ids)
            if budget <= 0:
                return

    def _next(self) -> Job | None:
        """The oldest request of the client that was given least."""
        if not self._waiting:
            return None
        client = min(
            self._waiting, key=lambda c: (self._given[c], self._waiting[c][0].since)
        )
        job = self._waiting[client].popleft()
        if not self._waiting[client]:
            del self._waiting[client]
        return job

    def _go_on(self) -> None:
        for slot, piece in self._slots.step().items():
            job = self._running[slot]
            self._given[job.client] += len(piece.tokens)
            over = self._slots.done(slot)
            reason = job.take(piece, bool(over)) or over
            if reason:
                self._end(slot, reason)

    def _end(self, slot: int, reason: str) -> None:
        self._free(slot).finish(reason)

    def _free(self, slot: int) -> Job:
        self._slots.stop(slot)
        with self._changed:
            job = self._running.pop(slot)
            if not self._active():
                self._given.clear()  # nobody is owed anything
        return job

    def _active(self) -> set[str]:
        return {*self._waiting, *(job.client for job in self._running.values())}

    def _all_waiting(self) -> Iterator[Job]:
        for queue in self._waiting.values():
            yield from queue

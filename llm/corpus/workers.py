"""Does tasks in this process or in several, and says how far they are.

with spread(2, work, make_work) as do:
    do("normalise", {"00000-000": ("change", 0, place, "00000-000")})
"""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llm import units
from llm.corpus import shard_tasks
from llm.errors import MachineError

# Called with what a person reads and, by marker, calls: the name of a function of
# tasks.py and its arguments.
Do = Callable[[str, Mapping[str, tuple]], None]

_EVERY = 10.0  # seconds between lines
_held: list[shard_tasks.Work] = []  # of this process, if it is one of several


def here(work: shard_tasks.Work) -> Do:
    """Does one task after the other."""

    def do(what: str, calls: Mapping[str, tuple]) -> None:
        progress = _Progress(what, len(calls))
        for name, *arguments in calls.values():
            shard_tasks.TASKS[name](work, *arguments)
            progress.add()

    return do


@contextlib.contextmanager
def spread(
    count: int, work: shard_tasks.Work, make: Callable[[], shard_tasks.Work]
) -> Iterator[Do]:
    """Does tasks in so many processes, each of which makes the work anew.

    One task alone is done here, so that little work begins no process.

    Raises:
      InputError: what a task raises.
      MachineError: a process that was ended.
    """

    def do(what: str, calls: Mapping[str, tuple]) -> None:
        if len(calls) < 2:
            here(work)(what, calls)
            return
        progress = _Progress(what, len(calls))
        waiting = [begun.submit(_do, *call) for call in calls.values()]
        for done in concurrent.futures.as_completed(waiting):
            done.result()
            progress.add()

    with pool(count, functools.partial(_hold, make)) as begun:
        yield do


@contextlib.contextmanager
def pool(
    count: int, begin: Callable[[], None]
) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """So many processes, each of which calls `begin` first; they end with this one.

    Raises:
      MachineError: one of them was ended.
    """
    made = concurrent.futures.ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), _begin, (begin,)
    )
    try:
        yield made
        made.shutdown()
    except BaseException as error:
        for process in multiprocessing.active_children():
            process.terminate()
        made.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, concurrent.futures.process.BrokenProcessPool):
            raise MachineError(
                got="a process that was ended while it worked",
                want="memory for all of them",
                do="run it again, perhaps with a smaller data.processes",
            ) from error
        raise


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _begin(begin: Callable[[], None]) -> None:
    # Ctrl-C is for the first process, which ends this one; so is any end of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, daemon=True).start()
    begin()


def _hold(make: Callable[[], shard_tasks.Work]) -> None:
    _held.append(make())


def _watch() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _do(name: str, *arguments: Any) -> None:
    shard_tasks.TASKS[name](_held[0], *arguments)


class _Progress:
    """A line now and then: how many tasks are done, and how long the others take."""

    def __init__(self, what: str, total: int):
        self._what, self._total, self._done = what, total, 0
        self._begun = self._said = time.monotonic()

    def add(self) -> None:
        """One more is done."""
        self._done += 1
        now = time.monotonic()
        if now - self._said < _EVERY or self._done >= self._total:
            return
        self._said = now
        rate = self._done / (now - self._begun)
        left = units.duration((self._total - self._done) / rate)
        print(
            f"{self._what}: {self._done} of {self._total} shards, {rate:.2g} a second, "
            f"{left} left",
            flush=True,
        )

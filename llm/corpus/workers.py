"""A pool of processes that end with this one.

with pool(2, begin) as processes:
    processes.submit(function, argument).result()
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator

from llm.errors import MachineError


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


def _watch() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)

"""The wall time of a run, over all the processes that it took.

Goodput is the share of that time which went into steps that count. Wall time begins
with the first process that trained, and ends now, or with the last sign of life of a
run that is over: imports, compilation, restoring, validation, checkpoints, work that a
kill undid, and the time when no process ran are all in it, and are no goodput.
`processes.json` of the run directory holds a pair of times for each process, in seconds
since 1970: when it began, and when it last told of itself.

    wall = Wall(workdir)
    wall.note()                     # at each logged step
    wall.seconds, wall.down         # down: while no process ran
"""

import json
import os
import pathlib
import time

from llm import atomic

_FILE = "processes.json"
_IMPORTED = time.time()


class Wall:
    """Counts from the first process of the run in this directory on.

    Args:
      silent: writes nothing; another process of the run does.
      began: of this process, or when it began with this run.
      clock: seconds since 1970.
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        *,
        silent: bool = False,
        began: float | None = None,
        clock=time.time,
    ):
        self._path, self._silent, self._clock = (
            pathlib.Path(workdir) / _FILE,
            silent,
            clock,
        )
        self._began = process_start() if began is None else began
        self._before = _read(self._path)
        self._processes = self._before

    def note(self) -> None:
        """This process is at work. One that notes nothing, as nothing is left to do,
        is no part of the run."""
        self._processes = [*self._before, [self._began, self._clock()]]
        if not self._silent:
            atomic.write_text(self._path, json.dumps(self._processes) + "\n")

    @property
    def seconds(self) -> float:
        """From the beginning of the first process to the last sign of life."""
        if not self._processes:
            return 0.0
        return max(self._processes[-1][1] - self._processes[0][0], 0.0)

    @property
    def down(self) -> float:
        """Of these, between the last sign of one process and the next one's start."""
        pairs = zip(self._processes, self._processes[1:], strict=False)
        return sum(max(new[0] - old[1], 0.0) for old, new in pairs)

    def share(self, productive: float) -> float:
        """Goodput: what `productive` seconds are of the wall time."""
        return productive / max(self.seconds, productive, 1e-9)


def process_start() -> float:
    """When this process began, in seconds since 1970; where the system does not tell,
    when this module was imported."""
    try:
        fields = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
    except (OSError, AttributeError, ValueError, IndexError):
        return _IMPORTED


def _read(path: pathlib.Path) -> list[list[float]]:
    try:
        found = json.loads(path.read_text())
        return [[float(began), float(seen)] for began, seen in found]
    except (OSError, ValueError, TypeError):
        return []

"""The wall time of a run, over all the processes that it took.

Goodput is the share of that time which went into steps that count. Wall time begins
when the first process begins to train, and ends now, or with the last sign of life of a
run that is over: restoring, compilation, validation, checkpoints, work that a kill
undid, and the time until another process goes on are all in it, and are no goodput.
`processes.json` of the run directory holds a pair of times for each process, in seconds
since 1970: when it began to train, and when it last told of itself.

    wall = Wall(workdir)
    wall.note()                     # often
    wall.seconds, wall.down         # down: while no process trained
    wall.close()
"""

import itertools
import json
import pathlib
import time

from llm import files

_FILE = "processes.json"
_EVERY = 2.0  # seconds between writes, as a disk may be slow


class Wall:
    """Counts from the first process of the run in this directory on.

    Args:
      silent: writes nothing; another process of the run does.
      clock: seconds since 1970.
    """

    def __init__(
        self, workdir: str | pathlib.Path, *, silent: bool = False, clock=time.time
    ):
        self._path = pathlib.Path(workdir) / _FILE
        self._silent, self._clock = silent, clock
        self._began, self._written = clock(), 0.0
        self._before = _read(self._path)
        self._processes = self._before

    def note(self) -> None:
        """This process is at work. One that notes nothing, as nothing is left to do,
        is no part of the run."""
        now = self._clock()
        self._processes = [*self._before, (self._began, now)]
        if abs(now - self._written) >= _EVERY:
            self._write()

    def close(self) -> None:
        """Writes the last note."""
        if self._processes is not self._before:
            self.note()
            self._write()

    def _write(self) -> None:
        self._written = self._processes[-1][1]
        if not self._silent:
            files.write_text(self._path, json.dumps(self._processes) + "\n")

    @property
    def alone(self) -> bool:
        """Whether no process trained here before this one; it may still do."""
        return not self._before

    @property
    def seconds(self) -> float:
        """From the beginning of the first process to the last sign of life; a clock
        that is set back stands still."""
        return self.down + sum(
            max(seen - began, 0.0) for began, seen in self._processes
        )

    @property
    def down(self) -> float:
        """Of these, between the last sign of one process and the next one's start."""
        pairs = itertools.pairwise(self._processes)
        return sum(max(new[0] - old[1], 0.0) for old, new in pairs)

    def share(self, productive: float) -> float:
        """Goodput: what `productive` seconds are of the wall time."""
        return productive / max(self.seconds, productive, 1e-9)


def _read(path: pathlib.Path) -> list[tuple[float, float]]:
    try:
        found = json.loads(path.read_text("utf-8"))
        return [(float(began), float(seen)) for began, seen in found]
    except (OSError, ValueError, TypeError):
        return []

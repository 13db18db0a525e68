"""How far a long evaluation is, and how long it will take: a line now and then."""

import time

from llm import units

_EVERY = 10.0  # seconds between lines


class Progress:
    """Counts what is done of a known total; short work says nothing.

    progress = Progress("mmlu", 1000)
    progress.add(32)
    """

    def __init__(self, what: str, total: int):
        self.what, self.total, self.done = what, total, 0
        self.begun = self.said = time.monotonic()

    def add(self, count: float) -> None:
        """So many more are done."""
        self.done += count
        now = time.monotonic()
        if now - self.said < _EVERY or self.done >= self.total:
            return
        self.said = now
        left = (now - self.begun) / self.done * (self.total - self.done)
        of = f"{self.done:.0f} of {self.total}"
        print(f"{self.what}: {of}, {units.duration(left)} left", flush=True)

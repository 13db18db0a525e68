"""A signal that asks a process to save and stop: the first is kept, none is lost."""

import signal
import threading
from typing import Any


class StopRequest:
    """SIGTERM and Ctrl-C ask the loop to save and stop; a second Ctrl-C stops it."""

    KNOWN = ("SIGINT", "SIGTERM")

    def __init__(self):
        self.requested = ""
        self._before: dict[int, Any] = {}

    def __enter__(self):
        # Only a main thread may; elsewhere (a notebook's worker) signals are not ours.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def ask(self, name: str = "SIGTERM") -> None:
        """Asks as a signal of that name would."""
        self.requested = name

    def _ask(self, number, frame):
        del frame
        if number == signal.SIGINT and self.requested:
            raise KeyboardInterrupt
        self.ask(signal.Signals(number).name)

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

"""How a run ends when it cannot go on, and the one line it prints."""

import difflib
import sys
from typing import Any


class InputError(ValueError):
    """Bad config or input: what we got, what we wanted, what to do."""

    def __init__(self, got: str, want: str, do: str = ""):
        self.got, self.want, self.do = got, want, do
        super().__init__(f"got {got}; want {want}{'; ' + do if do else ''}")

    def __reduce__(self):
        """From one process to another."""
        return type(self), (self.got, self.want, self.do)


class MachineError(InputError):
    """A disk or a process at fault, not the input: the same command may go on later."""


def report_input_error(error: InputError) -> int:
    """Prints the one line of a bad input and returns its exit code, 2."""
    print(f"llm: {error}", file=sys.stderr)
    return 2


class Stopped(SystemExit):
    """A run that ends before its time, with one line that says why."""

    def __init__(self, message: str, code: int):
        print(f"llm: {message}", file=sys.stderr)
        super().__init__(code)


class Preempted(Stopped):
    """SIGTERM: saved; exit code 75 says run me again."""

    def __init__(self, step: int):
        super().__init__(
            f"asked to stop: saved step {step}; run the same command again to resume",
            75,
        )


class Interrupted(Stopped):
    """Ctrl-C: saved; exit code 130."""

    def __init__(self, step: int):
        super().__init__(
            f"interrupted: saved step {step}; run the same command again to resume", 130
        )


class Diverged(Stopped):
    """A loss that is not finite; exit code 1."""

    def __init__(self, message: str):
        super().__init__(message, 1)


def hint(name: str, known: Any) -> str:
    """' (did you mean X?)' where a known name is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""

"""How a run ends when it cannot go on, and the one line it prints."""

import sys


class InputError(ValueError):
    """Bad config or input: what we got, what we wanted, what to do."""

    def __init__(self, got: str, want: str, do: str = ""):
        self.got, self.want, self.do = got, want, do
        super().__init__(f"got {got}; want {want}{'; ' + do if do else ''}")


class Preempted(SystemExit):
    """The run was asked to stop and has saved: exit code 75, resume me."""

    def __init__(self):
        super().__init__(75)


def report_input_error(error: InputError) -> int:
    """Prints the one line of a bad input and returns its exit code, 2."""
    print(f"llm: {error}", file=sys.stderr)
    return 2

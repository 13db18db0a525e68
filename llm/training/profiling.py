"""A trace of some steps, to be opened in XProf, TensorBoard or Perfetto.

    python -m llm.main ... --config.profile_steps="(10,13)"
    pip install xprof && xprof --logdir=WORKDIR        # or open the .gz in Perfetto

Names in it are those of modules and of `jax.named_scope`: `attention`, `mlp`, `loss`,
`optimizer`, ...
"""

import pathlib
from collections.abc import Callable

import jax

from llm.errors import InputError

FOLDER = "profile"


def check(given: tuple, steps: int) -> None:
    """Raises InputError for steps of which there can be no trace.

    Args:
      given: `profile_steps`; () traces nothing.
      steps: length of the run.
    """
    whole = all(type(step) is int for step in given)
    if given and not (whole and len(given) == 2 and 0 < given[0] <= given[1]):
        raise InputError(
            got=f"profile_steps {given}", want="two steps, such as (10, 13)"
        )
    if given and given[0] > steps:
        raise InputError(
            got=f"profile_steps {given} of a run of {steps} steps",
            want=f"a first one of at most {steps}",
        )


class Profiler:
    """Traces the steps from `first` to `last`, both in it; none where they are 0.

    A run that goes on between them, or ends there, has a trace of those that it takes.

    Args:
      say: where to tell of the trace, once it is written.
    """

    def __init__(
        self, workdir: str, first: int, last: int, say: Callable[[str], None] = print
    ):
        self._folder = pathlib.Path(workdir) / FOLDER
        self._first, self._last, self._say = first, last, say
        self._began = self._at = 0
        self._done = not last

    def before(self, step: int) -> None:
        """Called before a step is dispatched."""
        if self._done or self._began or step < self._first:
            return
        if step > self._last:
            self._done = True
            self._say(
                f"no profile: this process begins with step {step}, after steps "
                f"{self._first} to {self._last}"
            )
            return
        jax.profiler.start_trace(self._folder)
        self._began = step

    def after(self, step: int, made: object) -> None:
        """Called with what the step makes."""
        self._at = step
        if self._began and step == self._last:
            jax.block_until_ready(made)
            self.close()

    def close(self) -> None:
        """Ends a trace that goes on."""
        if self._done or not self._began:
            return
        self._done = True
        jax.profiler.stop_trace()
        whole = (self._began, self._at) == (self._first, self._last)
        of = "" if whole else f" alone, of {self._first} to {self._last}"
        self._say(f"profile of steps {self._began} to {self._at}{of}: {self._folder}")

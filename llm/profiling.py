"""A trace of some steps, to be opened in XProf, TensorBoard or Perfetto.

    python -m llm.main ... --config.profile_steps="(10,13)"
    pip install xprof && xprof --logdir=WORKDIR        # or open the .gz in Perfetto

Names in it are those of modules and of `jax.named_scope`: `attention`, `mlp`, `loss`,
`optimizer`, ...
"""

import pathlib

import jax

FOLDER = "profile"


class Profiler:
    """Traces the steps from `first` to `last`, both in it; none where they are 0."""

    def __init__(self, workdir: str, first: int = 0, last: int = 0):
        self._folder = pathlib.Path(workdir) / FOLDER
        self._first, self._last, self._on = first, last, False

    def before(self, step: int) -> None:
        """Called before a step is dispatched."""
        if step == self._first:
            jax.profiler.start_trace(self._folder)
            self._on = True

    def after(self, step: int, made: object) -> str:
        """Called with what the step makes; what to tell, once the trace is written."""
        if not self._on or step != self._last:
            return ""
        jax.block_until_ready(made)
        self.close()
        return f"profile of steps {self._first} to {step}: {self._folder}"

    def close(self) -> None:
        """Ends a trace that goes on."""
        if self._on:
            self._on = False
            jax.profiler.stop_trace()

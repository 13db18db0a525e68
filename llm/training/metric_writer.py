"""What a run says about itself: metrics.jsonl, TensorBoard, W&B, and the console.

`metrics.jsonl` is the record of a run: one JSON object a logged step, appended by one
write each, so a killed process leaves whole lines and at most one torn one at the end.
A run that resumes at step k opens it with `resume_step=k`: later lines and the torn one
go, and every step appears once however often the run was killed. Numbers that are not
finite are the strings "NaN", "Infinity" and "-Infinity" (protobuf's JSON mapping), as
JSON has no such numbers.

    timer = StepTimer(total_steps=600)
    with MetricWriter(workdir, resume_step=0) as writer, Console(600) as console:
        ...
        lap = timer.lap(step, tokens)
        record = {"step": step, "loss": loss, "tokens_per_s": lap.tokens_per_s, ...}
        writer.write(record)
        console.log(record)
        with timer.pause():
            validate()
"""

import contextlib
import json
import math
import pathlib
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TextIO

from llm import files, units
from llm.errors import InputError
from llm.training.tensorboard import EventWriter

METRICS = "metrics.jsonl"


class MetricWriter:
    """Writes each logged step to metrics.jsonl, TensorBoard and, if asked, W&B.

    Args:
      workdir: the run directory, local.
      resume_step: the step of the checkpoint that the run continues from; what was
        logged after it goes. 0 is a new run, which keeps nothing.
      wandb: also log to Weights & Biases.
      run_config: the resolved config, for W&B.
      silent: writes nothing; another process of the run does.

    Raises:
      InputError: wandb is asked for and not installed, or the disk cannot be written.
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        *,
        resume_step: int,
        wandb: bool = False,
        run_config: Mapping[str, Any] | None = None,
        silent: bool = False,
    ):
        self.workdir, self._silent = pathlib.Path(workdir), silent
        if silent:
            return
        workdir = self.workdir
        # The only part that can be missing comes first: nothing is touched without it.
        self._wandb = _start_wandb(workdir, run_config) if wandb else None
        self._path = workdir / METRICS
        self._open(resume_step)

    def _open(self, resume_step: int) -> None:
        # A new run may log step 0 again (a validation before training).
        kept = [
            r for r in read(self.workdir) if resume_step and r["step"] <= resume_step
        ]
        files.write_text(self._path, "".join(map(_line, kept)))
        self._last = kept[-1]["step"] if kept else -1
        with files.writing(self._path):
            self._file = self._path.open("ab", buffering=0)
        first_step = resume_step + 1 if resume_step else 0
        self._events = EventWriter(self.workdir / "tensorboard", first_step)

    def rewind(self, step: int) -> None:
        """Forgets what was logged after a step, to which the run went back."""
        if self._silent:
            return
        self._file.close()
        self._events.close()
        self._open(step)

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes one step; `record["step"]` is above every step before it.

        Values are numbers (also numpy's and jax's scalars), text or None (not known).
        """
        if self._silent:
            return
        record = {k: v.item() if hasattr(v, "item") else v for k, v in record.items()}
        step = record["step"]
        if step <= self._last:
            raise ValueError(f"step {step} logged after step {self._last}")
        self._last = step
        with files.writing(self._path):
            self._file.write(_line(record).encode())
        scalars = {
            name: float(value)
            for name, value in record.items()
            if name != "step" and isinstance(value, (int, float))
        }
        self._events.scalars(step, scalars)
        if self._wandb is not None:
            self._wandb.log(scalars, step=step)

    def close(self) -> None:
        """Closes the files."""
        if self._silent:
            return
        self._file.close()
        self._events.close()
        if self._wandb is not None:
            self._wandb.finish()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def read(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl in order; a torn last line, or no file, is none.

    Raises:
      InputError: a line before the last one is not a record.
    """
    path = pathlib.Path(workdir) / METRICS
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            record["step"] += 0
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # what follows the last newline was cut off
                break
            raise InputError(
                got=f"{path}:{number} {line[:60]!r}",
                want="one JSON object with a step on every line",
                do="remove that line, or the file",
            ) from error
        if number < len(lines):
            records.append(
                {k: float(v) if v in _NAMES.values() else v for k, v in record.items()}
            )
    return records


_NAMES = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _line(record: Mapping[str, Any]) -> str:
    named = {
        key: _NAMES[str(float(value))]
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for key, value in record.items()
    }
    return json.dumps(named, allow_nan=False) + "\n"


def _start_wandb(workdir: pathlib.Path, run_config: Mapping[str, Any] | None):
    try:
        import wandb
    except ImportError as error:
        raise InputError(
            got="train.wandb=True without the wandb package",
            want="wandb installed",
            do="pip install wandb, or set --config.train.wandb=False",
        ) from error
    # The same id after a restart continues the same run there; W&B itself leaves out
    # steps that it has seen, and an exact resume repeats their values.
    path = workdir / "wandb_id.txt"
    if not path.exists():
        files.write_text(path, uuid.uuid4().hex[:8])
    config = dict(run_config) if run_config else None
    return wandb.init(
        id=path.read_text("utf-8"), dir=str(workdir), name=workdir.name,
        resume="allow", config=config,
    )  # fmt: skip


class Lap(NamedTuple):
    """Rates since the lap before, and what remains."""

    tokens_per_s: float
    steps_per_s: float
    eta_s: float  # for the steps that remain, pauses at their past rate included


class StepTimer:
    """Measures training speed; what happens in `pause()` does not count."""

    def __init__(self, total_steps: int, step: int = 0, clock=time.perf_counter):
        self._total, self._clock = total_steps, clock
        self._start = clock()
        self._paused = 0.0
        self._step_s = None
        self.restart(step)

    def restart(self, step: int, tokens: int = 0) -> None:
        """Begins a window here: what came before (a compilation) is not a speed.

        `step` and `tokens` count from the start of the run, as in `lap`.
        """
        self._first = self._last = (step, tokens)
        self._paused_before = self._paused
        self._mark = self._since = self._clock()
        self._window_paused = self._since_paused = 0.0

    def lap(self, step: int, tokens: int) -> Lap:
        """Ends the window: `step` steps and `tokens` tokens are done in all."""
        now = self._clock()
        seconds = max(now - self._mark - self._window_paused, 1e-9)
        steps, new = step - self._last[0], tokens - self._last[1]
        if steps:
            # Half the weight on this window: quick to follow, not jumpy.
            seen = self._step_s if self._step_s is not None else seconds / steps
            self._step_s = (seen + seconds / steps) / 2
        paused = (self._paused - self._paused_before) / max(step - self._first[0], 1)
        eta = max(self._total - step, 0) * ((self._step_s or 0.0) + paused)
        self._last, self._mark, self._window_paused = (step, tokens), now, 0.0
        return Lap(new / seconds, steps / seconds, eta)

    def worked(self) -> float:
        """Seconds since this was asked last, or since a restart, without pauses."""
        now = self._clock()
        seconds = now - self._since - self._since_paused
        self._since, self._since_paused = now, 0.0
        return max(seconds, 0.0)

    @property
    def seconds(self) -> float:
        """Since the timer was made, pauses included."""
        return self._clock() - self._start

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves the time of a block (validation, checkpoint) out of the rates."""
        start = self._clock()
        try:
            yield
        finally:
            spent = self._clock() - start
            self._paused += spent
            self._window_paused += spent
            self._since_paused += spent


class Console:
    """The lines that a person watches: a bar that redraws on a terminal, else lines."""

    def __init__(
        self, total_steps: int, stream: TextIO | None = None, *, silent: bool = False
    ):
        self._total, self._silent = total_steps, silent
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._bar, self._drawn_at = "", 0.0
        self._last: dict[str, Any] = {}
        self._said_unknown = False

    def log(self, record: Mapping[str, Any]) -> None:
        """Shows a logged step: the keys of a metrics.jsonl record."""
        if self._silent:
            return
        unknown = record.get("tokens_per_s") and record.get("mfu", 0) is None
        if unknown and not self._said_unknown:
            self._said_unknown = True
            self.message(
                "MFU unknown: llm/planning/flops.py has no peak FLOP/s for this device"
            )
        line = format_record(record, self._total)
        if not self._live:
            print(line, file=self._stream, flush=True)
            return
        # Validations stay on the screen; the steps between them redraw one line.
        if "validation_loss" in record:
            self.message(line)
        self._last = dict(record)
        self._show(record["step"])

    def progress(self, step: int) -> None:
        """Moves the bar, if there is one; cheap enough for every step."""
        due = time.monotonic() - self._drawn_at > 0.1
        if self._live and due and not self._silent:
            self._show(step)

    def _show(self, step: int) -> None:
        line = format_record(self._last | {"step": step}, self._total)
        width = shutil.get_terminal_size().columns - 1
        bar = _bar(step / max(self._total, 1), self._stream.encoding)
        self._draw(f"{bar}  {line}"[:width])
        self._drawn_at = time.monotonic()

    def message(self, text: str) -> None:
        """Prints a line that stays: a warning, a checkpoint."""
        if self._silent:
            return
        if not self._bar:
            print(text, file=self._stream, flush=True)
            return
        bar = self._bar
        self._draw("")
        print(text, file=self._stream)
        self._draw(bar)

    def close(self) -> None:
        """Leaves the last line on the screen."""
        if self._bar:
            print(file=self._stream, flush=True)
            self._bar = ""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def _draw(self, text: str) -> None:
        self._bar = text
        # Back to the start of the line, and clear it.
        print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)


def format_record(record: Mapping[str, Any], total_steps: int) -> str:
    """One line of a log: what the record holds, with units a person can read."""
    step, width = record["step"], len(str(total_steps))
    parts = [f"step {step:>{width}}/{total_steps}"]
    shown = {
        "loss": lambda x: f"loss {x:.3f}",
        "validation_loss": lambda x: f"val {x:.3f}",
        "grad_norm": lambda x: f"|g| {x:.2f}",
        "learning_rate": lambda x: f"lr {x:.1e}",
        "tokens_per_s": lambda x: f"{units.count(x)} tok/s",
        "model_flops_per_s": lambda x: units.quantity(x, "FLOP/s"),
        "mfu": lambda x: f"MFU {x:.1%}",
        "eta_s": lambda x: f"ETA {units.duration(x)}",
    }
    # Right after a (re)start there is no speed yet, only a compilation.
    if not record.get("tokens_per_s"):
        shown = {key: shown[key] for key in list(shown)[:4]}
    for key, form in shown.items():
        if record.get(key) is not None:
            parts.append(form(record[key]))
        elif key == "mfu" and "mfu" in record:
            parts.append("MFU unknown")
    return "  ".join(parts)


def _bar(share: float, encoding: str | None, width: int = 24) -> str:
    full, empty = ("█", "░") if "utf" in (encoding or "").lower() else ("#", "-")
    done = round(width * min(max(share, 0.0), 1.0))
    return f"{full * done}{empty * (width - done)} {share:4.0%}"

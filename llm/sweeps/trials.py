"""Trials: runs of their own, several at a time in processes of this machine.

    record = trials.run(root, trial, propose, total=12, processes=2, ...)

Each trial is a run directory `root/trials/0007` with the config `0007.json` and the log
`0007.txt` beside it. The corpus and tokens of trials that differ in neither are made
once, in `root/data/0`, and linked. `trials.json` is the record: what has ended is not
run again; what was stopped in the middle goes on from its checkpoint.

The processes share the machine's GPUs, TPU chips or cores evenly. They end with this
one, however it ends.
"""

import contextlib
import ctypes
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from llm import config, files, run_dir, units
from llm.errors import InputError
from llm.sweeps import search
from llm.training import metric_writer

_AGAIN = config.CONFIGS / "again.py"
_POLL_SECONDS = 0.2
_END_SECONDS = 120  # to save, when asked to stop
_ATTEMPTS = 3  # of a trial that asks to be run again (75, 76)
_MADE = ("corpus", "prepare_data.json", "tokenizer", "tokens", "train_tokenizer.json")


class Trial(NamedTuple):
    """A run of the sweep.

    Attributes:
      status: running, done, halved (stopped at a rung) or failed.
      value: the metric, as the run has it; None where it failed or runs.
      at_rungs: {step: the metric there}.
      reason: why it failed.
    """

    number: int
    values: dict[str, Any]
    status: str = "running"
    value: float | None = None
    steps: int = 0
    tokens: int = 0
    parameters: int = 0
    seconds: float = 0.0
    at_rungs: dict[str, float] = {}
    reason: str = ""


class Wanted(NamedTuple):
    """What of a trial is measured, and how trials are halved.

    Attributes:
      metric: a key of train.json or evaluate.json.
      sign: 1 where lower is better, -1 where higher is.
      rungs: steps at which trials are compared; () compares none.
      factor: of successive halving.
    """

    metric: str
    sign: int = 1
    rungs: tuple[int, ...] = ()
    factor: int = 0


def read(root: pathlib.Path) -> list[Trial]:
    """The record of a sweep, by number; [] of none, InputError if it is broken."""
    path = root / "trials.json"
    if not path.exists():
        return []
    try:
        held = json.loads(path.read_text("utf-8"))
        if not isinstance(held, list):
            raise TypeError(f"a {type(held).__name__}, not a list")
        found = [Trial(**t) for t in held]
        found = [t._replace(values=_as_config(t.values)) for t in found]
        unknown = {t.status for t in found} - {"running", "done", "halved", "failed"}
        if unknown:
            raise ValueError(f"status {unknown.pop()!r}")
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            got=f"{path}, which is no record of trials ({error})",
            want="the file as a sweep wrote it",
            do="restore it, or use another --workdir",
        ) from error
    if [t.number for t in found] != list(range(len(found))):
        raise InputError(
            got=f"{path} without some of its trials", want="all of them, by number"
        )
    return found


def _as_config(values: dict[str, Any]) -> dict[str, Any]:
    """What JSON gives back, with its lists as the tuples that they were."""

    def tuples(value):
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return {field: tuples(value) for field, value in values.items()}


def run(
    root: pathlib.Path,
    trial: ConfigDict,
    propose: Callable[[list[Trial]], dict[str, Any] | None],
    wanted: Wanted,
    *,
    processes: int,
    total: int,
    each: Callable[[list[Trial]], None] = lambda known: None,
) -> list[Trial]:
    """Runs trials until `propose` has no more, and returns all of them.

    Args:
      trial: the config that the values are put in.
      propose: from the trials so far, with those that run, to the values of the next.
      processes: how many run at once.
      total: how many there will be, to tell how far it is.
      each: called with all trials whenever one has ended.
    """
    with files.lock(root, "runs trials"), contextlib.ExitStack() as last:
        shares = [share(slot, processes) for slot in range(processes)]
        known = {t.number: t for t in read(root)}
        waiting = [t for t in known.values() if t.status == "running"]
        free, working = list(range(processes)), []
        start, before = (
            time.monotonic(),
            sum(t.status != "running" for t in known.values()),
        )

        def keep(found: Trial) -> None:
            known[found.number] = found
            listed = [known[n]._asdict() for n in sorted(known)]
            text = json.dumps(listed, indent=1) + "\n"
            files.write_text(epath.Path(root / "trials.json"), text)

        last.callback(_ended, working, keep)
        while True:
            while free:
                values = None
                if not waiting:
                    values = propose([known[n] for n in sorted(known)])
                    if values is None:
                        break
                next_one = waiting.pop(0) if waiting else Trial(len(known), values)
                keep(next_one)
                slot = free.pop(0)
                config = search.applied(trial, next_one.values)
                environment, cores = shares[slot]
                data = _prepared(root, config, environment, cores)
                working.append(_Worker(root, next_one, config, slot, data,
                                       environment, cores))  # fmt: skip
            if not working:
                return [known[n] for n in sorted(known)]
            time.sleep(_POLL_SECONDS)
            for worker in list(working):
                worker.look(wanted, known.values())
                if worker.trial != known[worker.trial.number]:
                    keep(worker.trial)
                if worker.trial.status == "running":
                    continue
                working.remove(worker)
                free.append(worker.slot)
                ended = sum(t.status != "running" for t in known.values())
                spent = time.monotonic() - start
                rest = spent / (ended - before) * (total - ended)
                print(_line(worker.trial, known.values(), wanted, ended, total, rest),
                      flush=True)  # fmt: skip
                each([known[n] for n in sorted(known)])


def _ended(working: list["_Worker"], keep: Callable[[Trial], None]) -> None:
    """Asks all to save and stop, then waits for them; keeps the time they took."""
    for worker in working:
        worker.ask()
    for worker in working:
        worker.end()
        keep(worker.trial._replace(seconds=round(worker.spent(), 1)))


def best(trials, wanted: Wanted) -> Trial | None:
    """The best of those that trained to their end."""
    done = [t for t in trials if t.status == "done" and t.value is not None]
    return min(done, key=lambda t: (wanted.sign * t.value, t.number), default=None)


def named(values: Mapping[str, Any]) -> str:
    """`optimizer.learning_rate=0.01 model.layers=2`."""
    return " ".join(f"{field}={value}" for field, value in values.items())


def _line(trial, every, wanted, ended, total, rest) -> str:
    said = {
        "done": lambda: f"{wanted.metric} {trial.value:.4f}",
        "halved": lambda: (
            f"{wanted.metric} {trial.value:.4f}, stopped at step {trial.steps}"
        ),
        "failed": lambda: f"failed: {trial.reason}",
    }[trial.status]()
    leader = best(every, wanted)
    told = f"; best {leader.value:.4f} of trial {leader.number}" if leader else ""
    left = f"; about {units.duration(rest)} left" if ended < total else ""
    return (
        f"({ended}/{total}) trial {trial.number}, {named(trial.values)}: {said} in "
        f"{units.duration(trial.seconds)}{told}{left}"
    )


def share(slot: int, processes: int) -> tuple[dict[str, str], tuple[int, ...]]:
    """What a process of several may use: environment variables, and cores.

    Raises:
      InputError: more processes than there are GPUs or TPU chips.
    """
    if processes == 1:
        return {}, ()
    chips = _tpu_chips()
    gpus = _gpus()
    for found, kind in ((gpus, "GPUs"), (chips, "TPU chips")):
        if found and processes > len(found):
            raise InputError(
                got=f"sweep.processes {processes} on {len(found)} {kind}",
                want=f"at most {len(found)}",
            )
    if gpus:
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[slot::processes])}, ()
    if chips:
        one = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
        return one | {"TPU_VISIBLE_CHIPS": chips[slot]}, ()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return {}, tuple(cores[slot::processes])


def _gpus() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    folder = pathlib.Path("/proc/driver/nvidia/gpus")
    found = list(folder.iterdir()) if folder.exists() else []
    return [str(number) for number in range(len(found))]


def _tpu_chips() -> list[str]:
    named = os.environ.get("TPU_VISIBLE_CHIPS")
    if named is not None:
        return [name for name in named.split(",") if name]
    found = [*pathlib.Path("/dev").glob("accel[0-9]*"),
             *pathlib.Path("/dev/vfio").glob("[0-9]*")]  # fmt: skip
    return [str(number) for number in range(len(found))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Worker:
    """A process that runs a trial."""

    def __init__(self, root, trial, config, slot, data, environment, cores):
        # At the rungs of an attempt that was cut short it is judged again.
        self.slot, self.trial = slot, trial._replace(at_rungs={})
        self._folder = root / "trials" / f"{trial.number:04d}"
        self._own = environment, cores
        self._attempts, self._seen, self._asked = 0, -1, False
        self._before = trial.seconds
        files.write_text(
            epath.Path(self._folder.with_suffix(".json")),
            json.dumps({"config": config.to_dict()}, indent=1) + "\n",
        )
        _linked(self._folder, data)
        self._start()

    def _start(self):
        self._attempts += 1
        self._began = time.monotonic()
        self._log = self._folder.with_suffix(".txt")
        self._process = _started(
            self._folder.with_suffix(".json"), self._folder, self._log, *self._own
        )

    def spent(self) -> float:
        """Seconds of all attempts."""
        return self._before + time.monotonic() - self._began

    def look(self, wanted: Wanted, every) -> None:
        """Brings `trial` up to date, and stops it where halving says so."""
        code = self._process.poll()
        spent = self.spent()
        self._at_rungs(wanted, every)
        if code is None:
            return
        self.trial = self.trial._replace(seconds=round(spent, 1))
        result = self._result()
        if code == 0:
            value = result.get(wanted.metric)
            missing = f"{wanted.metric} is {value}"
            if value is None:  # nor will another trial have it
                numbers = sorted(k for k, v in result.items() if _is_number(v))
                raise InputError(
                    got=f"sweep.metric {wanted.metric!r}, of which trial "
                    f"{self.trial.number} says nothing",
                    want=f"one of {', '.join(numbers)}",
                    do="name it, and another --workdir",
                )
            known = _is_number(value) and math.isfinite(value)
            self.trial = self.trial._replace(
                status="done" if known else "failed", value=value if known else None,
                reason="" if known else missing,
                steps=result.get("steps", 0), tokens=result.get("tokens", 0),
                parameters=result.get("parameters", 0),
            )  # fmt: skip
        elif self._asked:
            step, value = max((int(k), v) for k, v in self.trial.at_rungs.items())
            self.trial = self.trial._replace(status="halved", value=value, steps=step)
        elif code in (75, 76) and self._attempts < _ATTEMPTS:
            self._before = spent
            self._start()
        else:
            said = (
                self._log.read_text(errors="replace", encoding="utf-8")
                .strip()
                .splitlines()
            )
            reason = said[-1].removeprefix("llm: ") if said else f"exit code {code}"
            if code < 0:
                reason = f"ended by {signal.Signals(-code).name}"
            self.trial = self.trial._replace(status="failed", reason=reason)

    def _at_rungs(self, wanted: Wanted, every) -> None:
        """Notes the metric at rungs, and whether the trial is to go on from there."""
        path = self._folder / metric_writer.METRICS
        size = path.stat().st_size if wanted.rungs and path.exists() else -1
        if size == self._seen:
            return
        self._seen = size
        held = {
            r["step"]: r[wanted.metric]
            for r in metric_writer.read(self._folder)
            if r["step"] in wanted.rungs and isinstance(r.get(wanted.metric), float)
        }
        for step in sorted(held):
            if str(step) in self.trial.at_rungs or self._asked:
                continue
            at = {**self.trial.at_rungs, str(step): held[step]}
            self.trial = self.trial._replace(at_rungs=at)
            others = [
                wanted.sign * t.at_rungs[str(step)] for t in every
                if str(step) in t.at_rungs and t.number != self.trial.number
            ]  # fmt: skip
            own = wanted.sign * held[step]
            if not search.goes_on(own, [*others, own], wanted.factor):
                self._asked = True
                self.ask()

    def _result(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in ("evaluate.json", "train.json"):
            path = self._folder / name
            found |= json.loads(path.read_text("utf-8")) if path.exists() else {}
        return found

    def ask(self) -> None:
        """Asks it to save and stop."""
        if self._process.poll() is None:
            self._process.terminate()

    def end(self) -> None:
        """Waits until it has ended, and makes sure that it does."""
        try:
            self._process.wait(_END_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()


def command(config: pathlib.Path, workdir: pathlib.Path) -> list[str]:
    """What runs a config, which is a JSON file."""
    return [sys.executable, "-m", "llm.main", f"--config={_AGAIN}:run={config}",
            f"--workdir={workdir}"]  # fmt: skip


def _started(config, workdir, log, environment, cores) -> subprocess.Popen:
    """A process of `llm.main` on a config, its output in a file."""

    def settle():
        # Signals of a terminal are for the sweep, which passes them on; and who asked
        # for the trial may be killed, which ends it as a preemption would.
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if cores:
            os.sched_setaffinity(0, cores)

    files.make_folder(log.parent)
    package = str(pathlib.Path(__file__).parent.parent.parent)
    with log.open("a", encoding="utf-8") as out:
        return subprocess.Popen(
            command(config, workdir),
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1",
                 "PYTHONPATH": os.pathsep.join(
                     filter(None, (package, os.environ.get("PYTHONPATH"))))},
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            preexec_fn=settle,
        )  # fmt: skip


def _prepared(root, config: ConfigDict, environment, cores) -> pathlib.Path | None:
    """The folder with the corpus and tokens of a config, made if it is not there."""
    if config.workload not in ("train", "pipeline"):
        return None
    about = {"data": config.data.to_dict(), "tokenizer": config.tokenizer.to_dict(),
             "init_from": config.init_from}  # fmt: skip
    about = json.loads(json.dumps(about))
    for number in range(10_000):
        folder, noted = root / "data" / f"{number}", root / "data" / f"{number}.json"
        if not noted.exists():
            break
        held = run_dir.load(str(noted.parent), noted.name)["config"]
        if all(held.get(key) == value for key, value in about.items()):
            if (folder / "train_tokenizer.json").exists():
                return folder
            break
    for workload in ("prepare_data", "train_tokenizer"):
        own = ConfigDict(config.to_dict())
        own.workload = workload
        text = json.dumps({"config": own.to_dict()}, indent=1) + "\n"
        files.write_text(epath.Path(noted), text)
        log = noted.with_suffix(".txt")
        process = _started(noted, folder, log, environment, cores)
        try:
            code = process.wait()
        finally:
            process.terminate()
            process.wait()
        said = log.read_text(
            errors="replace", encoding="utf-8"
        ).strip().splitlines() or ["nothing"]
        if code:
            raise InputError(
                got=f"{workload} for the trials, which ended with {code}: "
                + said[-1].removeprefix("llm: "),
                want="a corpus and its tokens",
                do=f"see {log}",
            )
    print(f"data: {folder}: {said[-1]}", flush=True)
    return folder


def _linked(folder: pathlib.Path, data: pathlib.Path | None) -> None:
    """Puts links to what is prepared into a trial's directory."""
    files.make_folder(folder)
    for name in _MADE if data else ():
        if (data / name).exists() and not os.path.lexists(folder / name):
            (folder / name).symlink_to(os.path.relpath(data / name, folder))

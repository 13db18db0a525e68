"""Kill -9 at any instant, SIGTERM, Ctrl-C: run again, it is as if nothing had happened.

Every run is a process of its own; all share a compilation cache.
"""

import gzip
import json
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import forks
import jax
import numpy as np
import pytest
from test_preemption import server as metadata

from llm import config
from llm.errors import InputError
from llm.inference import load_model
from llm.training import train_step
from llm.workloads import prepare_data, train, train_tokenizer

pytestmark = pytest.mark.long

STEPS = 40
CONFIG = """
from llm import config, registry

def get_config(arg=None):
    arg = config.parse_arg(arg, text="")
    c = config.base("train")
    c.data.source = registry.spec("sources", "text", path=arg.text, piece_bytes=500)
    c.data.stages = ("normalise",)
    c.data.validation_fraction = c.data.test_fraction = 0.2
    c.tokenizer.vocab_size = 300
    tiny = registry.module("models", "llama").TINY
    c.model = registry.spec("models", "llama", **tiny, dropout=0.1)
    c.train.update(steps=STEPS, batch_size=4, seq_len=32, accumulate=2, ema=0.99)
    c.train.update(log_every=2, validate_every=7, checkpoint_every=5)
    c.train.update(validation_sequences=8, keep_last=2, keep_best=1)
    c.mesh = (("data", 1),)
    return c
""".replace("STEPS", str(STEPS))
TIMES = {
    "tokens_per_s",
    "model_flops_per_s",
    "mfu",
    "eta_s",
    "seconds",
    "wall_seconds",
    "goodput",
    "input_s",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a config, a corpus and its tokens in `data`."""
    folder = tmp_path_factory.mktemp("resume")
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefgh", k=rng.randrange(1, 7))) for _ in range(60)]
    lines = [" ".join(rng.choices(words, k=9)) + "." for _ in range(400)]
    text = "\n\n".join("\n".join(lines[i : i + 5]) for i in range(0, 400, 5))
    (folder / "text.txt").write_text(text)
    (folder / "config.py").write_text(CONFIG)
    c = config.load(str(folder / "config.py"), "config", f"text={folder / 'text.txt'}")
    (folder / "data").mkdir()
    prepare_data.run(c, folder / "data")
    train_tokenizer.run(c, folder / "data")
    return folder


@pytest.fixture(scope="module")
def server(place):
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(place / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with forks.Server(place, **cache) as server:
        yield server


def words(place, workdir, *more):
    return (
        f"--config={place / 'config.py'}:text={place / 'text.txt'}",
        f"--workdir={workdir}",
        *more,
    )


def fresh(place, name):
    """A run directory in which everything but the training is done."""
    return shutil.copytree(place / "data", place / name)


@pytest.fixture(scope="module")
def undisturbed(place, server):
    workdir = fresh(place, "undisturbed")
    code, _, err = server.run(*words(place, workdir))
    assert code == 0, err
    return workdir


def records(workdir):
    path = workdir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def loop_of(workdir, step=STEPS):
    """What the last checkpoint remembers, its digest of all arrays among it."""
    root = workdir / "checkpoints" / str(step) / "loop"
    return json.loads((root / "metadata").read_text())


def assert_same(workdir, want):
    logged = [r["step"] for r in records(workdir)]
    assert logged == sorted(set(logged))
    due = {s for s in range(1, STEPS + 1) if s % 2 == 0 or s % 7 == 0}
    assert set(logged) == due
    for got, wanted in zip(records(workdir), records(want), strict=True):
        assert got.keys() == wanted.keys()
        for key in got.keys() - TIMES:
            assert got[key] == wanted[key], (got["step"], key)
    validated = [r["step"] for r in records(workdir) if "validation_loss" in r]
    assert validated == [7, 14, 21, 28, 35, 40]
    ours, theirs = loop_of(workdir), loop_of(want)
    for key in ("digests", "best", "events", "waited", "best_validation_loss", "step"):
        assert ours[key] == theirs[key], key
    for which in ("best", "last"):
        a, b = (
            load_model.load(str(folder), jax.devices()[0], which=which)
            for folder in (workdir, want)
        )
        assert a.step == b.step
        jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    kept = [
        {p.name for p in (folder / "checkpoints").iterdir()}
        for folder in (workdir, want)
    ]
    assert kept[0] == kept[1]


def test_a_run_that_is_not_disturbed(undisturbed):
    assert_same(undisturbed, undisturbed)
    first, last = records(undisturbed)[0], records(undisturbed)[-1]
    assert last["loss"] < first["loss"] - 0.3, "it must learn, to show anything"
    assert len(list((undisturbed / "checkpoints").iterdir())) <= 3
    assert not (undisturbed / "unreadable").exists()


def test_killed_at_any_instant(place, server, undisturbed):
    rng = random.Random()  # another instant each time
    workdir, killed = fresh(place, "killed"), 0
    # Some way into the run, twice right after another, and during the start.
    for wanted in (rng.randrange(2, 8), rng.randrange(10, 20), 0):
        run = server.start(*words(place, workdir))
        since = (workdir / "metrics.jsonl").stat().st_mtime_ns if wanted == 0 else 0
        if wanted:
            forks.until(lambda n=wanted: any(r["step"] >= n for r in records(workdir)))
        else:  # as soon as it begins to write again
            path = workdir / "metrics.jsonl"
            forks.until(lambda p=path, t=since: p.stat().st_mtime_ns != t)
        time.sleep(rng.random() * 0.05)
        run.kill()
        code, _, err = run.wait()
        assert code in (-signal.SIGKILL, 0), err
        killed += code != 0
    assert killed >= 2, "else this tests nothing"
    code, out, err = server.run(*words(place, workdir))
    assert code == 0, err
    assert "resuming after step" in out
    assert_same(workdir, undisturbed)


def test_asked_to_stop(place, server, undisturbed):
    """SIGTERM, then Ctrl-C, then to the end."""
    workdir = fresh(place, "stopped")
    for number, code, line, at in (
        (signal.SIGTERM, 75, "asked to stop: saved step", 6),
        (signal.SIGINT, 130, "interrupted: saved step", 20),
    ):
        run = server.start(*words(place, workdir))
        forks.until(lambda n=at: any(r["step"] >= n for r in records(workdir)))
        run.kill(number)
        got, _, err = run.wait()
        assert got == code, err
        (said,) = [text for text in err.splitlines() if text.startswith("llm: ")]
        assert line in said and said.endswith("run the same command again to resume")
        step = int(said.split("step ")[1].split(";")[0])
        assert (workdir / "checkpoints" / str(step)).is_dir()
        assert "Traceback" not in err
    code, out, err = server.run(*words(place, workdir))
    assert code == 0, err
    assert f"resuming after step {step}" in out
    # The checkpoints of the two stops are gone again, the newest and the best are kept.
    assert_same(workdir, undisturbed)


def corrupt(workdir, rng):
    """Other bytes in the largest file of the newest checkpoint; False without one."""
    found = [p for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()]
    newest = max(found, key=lambda p: int(p.name), default=None)
    files = [p for p in newest.rglob("*") if p.is_file()] if newest else []
    # The only one there is must stay: then there is nothing to go back to.
    if len(found) < 2 or not files:
        return False
    path = max(files, key=lambda p: p.stat().st_size)
    held = bytearray(path.read_bytes())
    at = rng.randrange(len(held) // 4, len(held) // 2)
    held[at : at + 64] = rng.randbytes(64)
    path.write_bytes(held)
    return True


def disturb(run, kind, workdir, rng):
    """Does one of the things that end runs; the exit codes that may follow."""
    if kind == "kill":
        run.kill()
        return {-signal.SIGKILL}
    if kind == "stop":
        run.kill(signal.SIGTERM)
        return {75}
    # No file may grow beyond so many bytes, as on a full disk; what it says fits, with
    # what the writing library says besides.
    most = 100_000 + rng.randrange(100_000)
    resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    return {2}


def chaos(place, server, undisturbed, kinds, seed):
    """Ends a run in these ways, one after the other, whenever it has begun to train."""
    rng = random.Random(seed)
    workdir, met = fresh(place, f"chaos{seed}"), []
    for kind in kinds:
        if kind == "corrupt":
            met += [kind] * corrupt(workdir, rng)
            continue
        path = workdir / "metrics.jsonl"
        since = path.stat().st_mtime_ns if path.exists() else 0
        run, codes = server.start(*words(place, workdir)), set()
        forks.until(
            lambda s=since, p=path, r=run: (
                (p.exists() and p.stat().st_mtime_ns != s) or r.over()
            )
        )
        time.sleep(rng.random() * 0.3)
        if not run.over():  # one that was stopped at its last step has nothing to do
            codes = disturb(run, kind, workdir, rng)
        code, _, err = run.wait()
        assert code in codes | {0}, (kind, code, err)
        if code == 2:
            assert "\nllm: got File too large" in err
        else:
            assert "Traceback" not in err, (kind, err)
        met += [kind] * (code != 0)
        if code == 0:  # it was done before: begin again
            shutil.rmtree(workdir)
            workdir = fresh(place, f"chaos{seed}")
    code, _, err = server.run(*words(place, workdir))
    assert code == 0, err
    assert_same(workdir, undisturbed)
    return met


def test_chaos(place, server, undisturbed):
    """One of each, and a checkpoint that is not what was written."""
    met = chaos(
        place, server, undisturbed, ("stop", "kill", "disk", "corrupt", "kill"), seed=1
    )
    assert {"kill", "disk"} <= set(met)


@pytest.mark.slow
def test_thirty_disturbances(place, server, undisturbed):
    rng = random.Random(7)
    kinds = [rng.choice(("kill", "stop", "disk", "corrupt")) for _ in range(30)]
    met = chaos(place, server, undisturbed, kinds, seed=2)
    print(f"met: {', '.join(met)}")
    assert len(met) >= 20 and set(met) == {"kill", "stop", "disk", "corrupt"}


def content(workdir):
    return {
        str(p.relative_to(workdir)): p.read_bytes()
        for p in workdir.rglob("*")
        if p.is_file()
    }


def test_another_config_changes_nothing(place, server, undisturbed):
    before = content(undisturbed)
    code, _, err = server.run(
        *words(place, undisturbed, "--config.optimizer.b1=0.8", "--config.seed=3")
    )
    assert code == 2
    (line,) = err.strip().splitlines()
    assert "optimizer.b1 (0.9 there, 0.8 here)" in line
    assert "seed (0 there, 3 here)" in line and "--workdir" in line
    assert content(undisturbed) == before


def test_a_finished_run_trains_no_more(place, server, undisturbed):
    before = content(undisturbed)
    code, out, err = server.run(*words(place, undisturbed))
    assert code == 0, err
    assert f"resuming after step {STEPS}" in out
    after = content(undisturbed)
    changed = {n for n in before if after.get(n) != before[n]}
    assert changed <= {"train.json"}
    assert {n for n in after if n not in before and "tensorboard" not in n} == set()


def test_a_loss_that_is_not_finite(place, server):
    """It names the step and the documents, and the state before it is kept."""
    workdir = fresh(place, "diverged")
    code, _, err = server.run(
        *words(
            place, workdir, "--config.optimizer.learning_rate=1e30",
            "--config.train.checkpoint_every=1",
        )
    )  # fmt: skip
    assert code == 1
    said = [line for line in err.splitlines() if line.startswith("llm: step ")]
    assert len(said) == 1 and "documents in the batch: text.txt#" in said[0], err
    at = int(said[0].split("step ")[1].split(":")[0])
    kept = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())
    assert max(kept) == at - 1
    assert f"last good checkpoint: step {at - 1}" in said[0]
    assert all(np.isfinite(r["loss"]) for r in records(workdir))


def test_steps_are_traced_and_time_is_accounted_for(place, server):
    workdir = fresh(place, "traced")
    code, _, err = server.run(*words(place, workdir, "--config.profile_steps=(3,4)"))
    assert code == 0, err
    assert "profile of steps 3 to 4" in err
    (trace,) = (workdir / "profile").rglob("*.trace.json.gz")
    with gzip.open(trace) as file:
        names = {event.get("name", "") for event in json.load(file)["traceEvents"]}
    assert "PjitFunction(step)" in names and any("fusion" in n for n in names)
    told = json.loads((workdir / "train.json").read_text())
    assert 0 < told["goodput"] < 1 and told["down_seconds"] == 0
    last = records(workdir)[-1]
    # Imports, reading and compiling come before, the last checkpoint after.
    assert last["seconds"] < last["wall_seconds"] <= told["wall_seconds"]
    assert last["goodput"] * last["wall_seconds"] == pytest.approx(
        told["goodput"] * told["wall_seconds"]
    )


def test_wall_time_goes_on_between_processes(place, server):
    """Work that a kill undid, and the time until the run was started again."""
    workdir = fresh(place, "lost")
    none = ("--config.train.checkpoint_every=0", "--config.train.validate_every=0")
    run = server.start(*words(place, workdir, *none))
    forks.until(lambda: any(r["step"] >= 10 for r in records(workdir)))
    run.kill()
    run.wait()
    gone = max(r["wall_seconds"] for r in records(workdir))
    time.sleep(1.5)
    code, _, err = server.run(*words(place, workdir, *none))
    assert code == 0, err
    told = json.loads((workdir / "train.json").read_text())
    assert told["down_seconds"] > 1.5
    assert told["wall_seconds"] > gone + told["down_seconds"] + told["seconds"]
    assert told["goodput"] < told["seconds"] / told["wall_seconds"]
    before = (workdir / "processes.json").read_text()
    assert len(json.loads(before)) == 2
    # Nothing is left to do: looking at it does not make the run longer.
    assert server.run(*words(place, workdir, *none))[0] == 0
    assert (workdir / "processes.json").read_text() == before
    again = json.loads((workdir / "train.json").read_text())
    assert again["wall_seconds"] == told["wall_seconds"]


HANGS = """
import time
from llm.training import watchdog
from llm.data import loader

watchdog.Watchdog.__init__.__kwdefaults__["least"] = 0.5
whole = loader.Batches.iterate

def iterate(self, start):
    for index, batch in enumerate(whole(self, start), start):
        if index == 25:
            time.sleep(600)
        yield batch

loader.Batches.iterate = iterate
"""


def test_a_training_that_hangs_ends_and_goes_on(place, server, undisturbed):
    """Its data never come: as a file system that is gone, or a deadlock."""
    workdir = fresh(place, "hangs")
    (place / "hangs.py").write_text(CONFIG + HANGS)
    first, *more = words(place, workdir)
    code, _, err = server.run(first.replace("config.py", "hangs.py"), *more)
    assert code == 76 and "it hangs; the stacks are in" in err
    (stacks,) = workdir.glob("hang-*.txt")
    assert 20 < int(stacks.stem.split("-")[1]) <= 26
    assert "hangs.py" in stacks.read_text() and "in fit" in stacks.read_text()
    assert "Traceback" not in err
    code, out, err = server.run(*words(place, workdir))
    assert code == 0 and re.search("resuming after step 2[05]", out), err
    assert_same(workdir, undisturbed)


FULL = """
import jax
from llm.training import train_step

made = train_step.jit_step

def jit_step(*arguments):
    step = made(*arguments)
    def call(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no room for 1234 bytes")
    call.trace = step.trace
    return call

train_step.jit_step = jit_step
"""


def test_a_device_without_memory_is_told_of(place, server):
    """What the step makes is named, by a trace of it with the run's own shapes."""
    workdir = fresh(place, "full")
    (place / "full.py").write_text(CONFIG + FULL)
    first, *more = words(place, workdir)
    code, _, err = server.run(first.replace("config.py", "full.py"), *more)
    assert code == 2 and "no room for 1234 bytes" in err and "Traceback" not in err
    (line,) = [text for text in err.splitlines() if "train.accumulate" in text]
    assert re.search(r"the step makes, over all devices: .*float32\[.*\] of ", line)
    # Of both layers, for a micro-batch of two rows of 32 tokens.
    told = (workdir / "memory.txt").read_text()
    assert "float32[2,2,32,128] of forward Llama/stack" in told


def test_what_is_named_is_what_ran(place, monkeypatch):
    """The step of this mesh: of stages, each with a part of the batch."""
    monkeypatch.setattr(train_step, "jit_step", train_step.jit_step)  # put back later
    exec(FULL, {})
    workdir = fresh(place, "stages")
    text = f"text={place / 'text.txt'}"
    c = config.load(str(place / "config.py"), "config", text)
    c.mesh, c.train.batch_size = (("stage", 2), ("data", -1)), 16
    with pytest.raises(InputError, match="_pipeline"):
        train.run(c, str(workdir))
    # No step was done: the directory is free for a run with fewer rows.
    c.train.batch_size = 8
    with pytest.raises(InputError, match="_pipeline"):
        train.run(c, str(workdir))
    # But not what a process that is at work there has begun.
    (workdir / "processes.json").write_text("[[1.0, 2.0]]")
    with pytest.raises(InputError, match="_pipeline"):
        train.run(c, str(workdir))
    assert (workdir / "metrics.jsonl").exists() and (workdir / "tensorboard").exists()
    c.train.batch_size = 16
    with pytest.raises(InputError, match=r"train\.batch_size"):
        train.run(c, str(workdir))


def test_it_says_where_numbers_stop_being_finite(place, server):
    workdir = fresh(place, "nan")
    more = ("optimizer.learning_rate=1e30", "train.find_nan=True", "train.steps=8")
    code, _, err = server.run(*words(place, workdir, *(f"--config.{x}" for x in more)))
    assert code == 1 and re.search("not finite first: |not so the gradients of ", err)
    assert "find_nan" not in err and "\n" not in err.strip()


def test_killed_with_checkpoints_on_its_own_disk(place, server, undisturbed):
    """No more is lost than the steps between them, and nothing of them stays."""
    workdir, disk = fresh(place, "near"), place / "disk"
    fields = {"local_every": 3, "local_dir": disk, "checkpoint_every": 0}
    more = [f"--config.train.{name}={value}" for name, value in fields.items()]
    run = server.start(*words(place, workdir, *more))
    # A validation at 14 leaves a shared one, if it is the best. One that is whole is
    # under the name of its step, and to save the next waits for it.
    forks.until(lambda: any(int(p.name) >= 18 for p in disk.glob("*/*/[0-9]*")))
    run.kill()
    code, _, _ = run.wait()
    assert code == -signal.SIGKILL
    reached = records(workdir)[-1]["step"]
    code, out, err = server.run(*words(place, workdir, *more))
    assert code == 0, err
    assert "the checkpoints of the machines themselves are newer" in out
    resumed = int(re.search(r"resuming after step (\d+)", out)[1])
    assert resumed >= 18 and reached - resumed < 2 * fields["local_every"]
    for got, wanted in zip(records(workdir), records(undisturbed), strict=True):
        assert got["loss"] == wanted["loss"]
    assert loop_of(workdir)["digests"] == loop_of(undisturbed)["digests"]
    assert list(disk.iterdir()) == []


def test_a_notice_of_the_machine_saves_the_run(place, server):
    workdir = fresh(place, "notice")
    with metadata({"/preempted": "TRUE"}) as url:
        notices = f"--config.train.notices={url}"
        code, _, err = server.run(*words(place, workdir, notices))
    assert code == 75 and "preemption notice for this machine: preempted: TRUE" in err
    assert loop_of(workdir, step=1)


@pytest.mark.slow
def test_memory_does_not_grow(place):
    """Over 2,000 steps with logs, validations and checkpoints, in one process."""
    workdir = fresh(place, "memory")
    more = ("train.steps=2000", "train.checkpoint_every=50", "train.notices=none")
    command = [sys.executable, "-m", "llm.main"]
    command += words(place, workdir, *(f"--config.{x}" for x in more))
    seen: dict[int, int] = {}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        for line in run.stderr:
            at = re.match(r"step\s+(\d+)/", line)
            if at:
                status = pathlib.Path(f"/proc/{run.pid}/status").read_text()
                seen[int(at[1])] = int(re.search(r"VmRSS:\s+(\d+)", status)[1])
    assert run.returncode == 0
    early = max(size for step, size in seen.items() if 300 <= step < 600)
    late = max(size for step, size in seen.items() if step > 1700)
    assert late < early + 30_000, seen  # kilobytes

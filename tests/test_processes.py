"""Real processes that train one model: any number of them, one killed, others after.

Eight devices in all. Every run is as a user starts it, one command a process with the
coordinator in its environment; they talk over gloo.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import forks
import numpy as np
import pytest

from llm import config
from llm.training import metric_writer
from llm.workloads import prepare_data, train_tokenizer

pytestmark = pytest.mark.long

STEPS = 20
CONFIG = """
from llm import config, registry
from llm.training import spikes, watchdog

whole = spikes.bounds

def bounds(loop, at):  # two steps that nothing is learned from, if a run asks for such
    return spikes.NOTHING if at in (9, 10) else whole(loop, at)

spikes.bounds = bounds
watchdog.Watchdog.__init__.__kwdefaults__["least"] = 5.0

def get_config(arg=None):
    arg = config.parse_arg(arg, text="", lora=False)
    c = config.base("train")
    c.data.source = registry.spec("sources", "text", path=arg.text, piece_bytes=500)
    c.data.stages = ("normalise",)
    c.data.validation_fraction = c.data.test_fraction = 0.2
    c.tokenizer.vocab_size = 300
    tiny = registry.module("models", "llama").TINY
    c.model = registry.spec("models", "llama", **tiny, dropout=0.1)
    c.train.update(steps=STEPS, batch_size=16, seq_len=32, accumulate=2)
    c.train.update(log_every=1, validate_every=10, checkpoint_every=5)
    c.train.update(validation_sequences=16)
    if arg.lora:
        c.adapter = registry.spec("adapters", "lora")
    c.mesh = (("data", 2), ("fsdp", 2), ("tensor", 2))
    return c
""".replace("STEPS", str(STEPS))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a config, a corpus and its tokens in `data`."""
    folder = tmp_path_factory.mktemp("processes")
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


def start(place, name, count, *more, lora=False, apart=False):
    """`count` processes of a run, and where they write: `apart`, each for itself."""
    workdir = place / name
    if not workdir.exists():
        subprocess.run(["cp", "-r", place / "data", workdir], check=True)
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        port = taken.getsockname()[1]
    started = []
    for number in range(count):
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(8 // count),
            "JAX_COMPILATION_CACHE_DIR": str(place / "cache"),
        }
        if count > 1:
            environment |= {
                "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                "JAX_NUM_PROCESSES": str(count),
                "JAX_PROCESS_ID": str(number),
            }
        command = [
            sys.executable, "-m", "llm.main",
            f"--config={place / 'config.py'}:text={place / 'text.txt'}{',lora' * lora}",
            f"--workdir={workdir}{f'-{number}' * (apart and number > 0)}", *more,
        ]  # fmt: skip
        output = (place / f"{name}.{number}.txt").open("w")
        started.append(
            subprocess.Popen(
                command, env=environment, cwd=forks.ROOT,
                stdout=output, stderr=subprocess.STDOUT,
            )
        )  # fmt: skip
    return workdir, started


def ended(place, workdir, started):
    """Exit codes, and what was said."""
    codes = [process.wait(timeout=240) for process in started]
    files = [place / f"{workdir.name}.{n}.txt" for n in range(len(started))]
    return codes, [file.read_text() for file in files]


def losses(workdir):
    return {r["step"]: r["loss"] for r in metric_writer.read(workdir)}


def until_step(workdir, step, started):
    while max(losses(workdir), default=0) < step:
        assert all(process.poll() is None for process in started), "it ended early"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def alone(place):
    """The losses of one process."""
    workdir, started = start(place, "alone", 1)
    codes, said = ended(place, workdir, started)
    assert codes == [0], said
    found = losses(workdir)
    assert list(found) == list(range(1, STEPS + 1))
    return found


def assert_same(workdir, want):
    found = losses(workdir)
    assert list(found) == list(want)
    np.testing.assert_allclose(list(found.values()), list(want.values()), rtol=1e-4)


@pytest.mark.commands
def test_two_processes(place, alone):
    workdir, started = start(place, "two", 2)
    codes, said = ended(place, workdir, started)
    assert codes == [0, 0], said
    assert_same(workdir, alone)
    assert "parameters" in said[0] and "parameters" not in said[1]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2])
def test_frozen_weights_in_several_processes(place, count):
    """An adapter's base lies beside the checkpoints, and is found by another number."""
    workdir, started = start(place, "lora_alone", 1, lora=True)
    codes, said = ended(place, workdir, started)
    assert codes == [0], said
    want = losses(workdir)
    workdir, started = start(place, "lora", count, lora=True)
    until_step(workdir, 8, started)
    for process in started:
        process.send_signal(signal.SIGTERM)
    codes, said = ended(place, workdir, started)
    assert codes == [75] * count, said
    workdir, started = start(place, "lora", 1, lora=True)
    codes, said = ended(place, workdir, started)
    assert codes == [0], said
    assert "resuming after step" in said[0]
    assert_same(workdir, want)


@pytest.mark.slow
def test_one_is_killed_and_four_go_on(place, alone):
    workdir, started = start(place, "killed", 2)
    until_step(workdir, 8, started)
    started[1].send_signal(signal.SIGKILL)
    codes, said = ended(place, workdir, started)  # the other does not wait for ever
    assert codes[0] == 76 and said[0].strip().endswith(
        "llm: another process was lost; run the same command again to resume"
    )
    workdir, started = start(place, "killed", 4)
    codes, said = ended(place, workdir, started)
    assert codes == [0] * 4, said
    assert "resuming after step" in said[0]
    assert_same(workdir, alone)


@pytest.mark.slow
def test_all_are_killed_and_go_on_from_their_own_disks(place, alone):
    fields = {"local_every": 2, "local_dir": place / "disk", "checkpoint_every": 0}
    more = [f"--config.train.{name}={value}" for name, value in fields.items()]
    workdir, started = start(place, "near", 2, *more)
    until_step(workdir, 8, started)
    for process in started:
        process.send_signal(signal.SIGKILL)
    ended(place, workdir, started)
    workdir, started = start(place, "near", 2, *more)
    codes, said = ended(place, workdir, started)
    assert codes == [0, 0], said
    assert "the checkpoints of the machines themselves are newer" in said[0]
    assert_same(workdir, alone)
    assert list((place / "disk").iterdir()) == []


@pytest.mark.slow
def test_one_is_asked_to_stop_and_all_do(place, alone):
    workdir, started = start(place, "stopped", 2)
    until_step(workdir, 6, started)
    started[1].send_signal(signal.SIGTERM)
    codes, said = ended(place, workdir, started)
    assert codes == [75, 75], said
    workdir, started = start(place, "stopped", 1)
    codes, said = ended(place, workdir, started)
    assert codes == [0], said
    assert_same(workdir, alone)


@pytest.mark.slow
def test_one_does_not_answer_any_more(place, alone):
    """It holds its connections, but does nothing: the other one ends itself."""
    # Before the runtime itself misses it, which takes 100 seconds.
    workdir, started = start(place, "silent", 2, "--config.train.watchdog=8")
    until_step(workdir, 8, started)
    started[1].send_signal(signal.SIGSTOP)
    try:
        assert started[0].wait(timeout=90) == 76
    finally:
        started[1].kill()
    assert "the median step" in (place / "silent.0.txt").read_text()
    assert len(list(workdir.glob("hang-*.txt"))) == 1
    workdir, started = start(place, "silent", 2)
    codes, said = ended(place, workdir, started)
    assert codes == [0, 0], said
    assert "resuming after step" in said[0]
    assert_same(workdir, alone)


@pytest.mark.slow
def test_all_go_back_from_a_spike(place):
    """And further back from the next one, all to the same step, as one process does."""
    found = []
    for count in (1, 2):
        rolls = ("--config.train.spike=rollback",)
        workdir, started = start(place, f"spikes_{count}", count, *rolls)
        codes, said = ended(place, workdir, started)
        assert codes == [0] * count, said
        events = json.loads((workdir / "train.json").read_text())["events"]
        told = [(e["step"], e["event"]) for e in events]
        assert told == [
            (9, "spike"), (5, "rollback"), (10, "spike"), (8, "spike"), (5, "rollback"),
        ]  # fmt: skip
        found.append(losses(workdir))
    assert list(found[0]) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(
        list(found[1].values()), list(found[0].values()), rtol=1e-4
    )


def test_half_of_a_coordinator(place):
    config_file = f"--config={place / 'config.py'}:text={place / 'text.txt'}"
    done = subprocess.run(
        [sys.executable, "-m", "llm.main", config_file, f"--workdir={place / 'half'}"],
        cwd=forks.ROOT, capture_output=True, text=True,
        env={**os.environ, "JAX_NUM_PROCESSES": "2"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "got JAX_NUM_PROCESSES=2; want JAX_COORDINATOR_ADDRESS" in done.stderr


def test_two_trainings_in_one_directory(place):
    """The second is refused at once, and the first does not notice."""
    workdir, first = start(place, "twice", 1)
    until_step(workdir, 1, first)
    first[0].send_signal(signal.SIGSTOP)  # else it may end before the second begins
    _, second = start(place, "twice", 1, "--config.train.watchdog=0")
    assert second[0].wait(timeout=240) == 2
    first[0].send_signal(signal.SIGCONT)
    assert first[0].wait(timeout=240) == 0
    said = (place / "twice.0.txt").read_text()  # of the second, which came later
    assert "in which another process trains" in said
    assert sorted(losses(workdir)) == list(range(1, STEPS + 1))


def test_directories_that_are_not_shared(place):
    """Found before the first step, where the first checkpoint would wait for ever."""
    workdir, started = start(place, "apart", 2, apart=True)
    codes, said = ended(place, workdir, started)
    assert 2 in codes and 0 not in codes
    assert any("processes 1 of 2 that do not see" in text for text in said), said
    assert not list(workdir.glob("checkpoints/*")) and not list(
        workdir.glob(".shared*")
    )


def test_a_run_is_made_longer(place, alone):
    workdir, started = start(place, "longer", 1)
    assert ended(place, workdir, started)[0] == [0]
    workdir, started = start(place, "longer", 1, f"--config.train.steps={STEPS + 5}")
    codes, (said,) = ended(place, workdir, started)
    assert codes == [0], said
    assert f"train.steps ({STEPS} there, {STEPS + 5} here)" in said
    assert "follows the schedule of the new length" in said
    found = losses(workdir)
    assert sorted(found) == list(range(1, STEPS + 6))
    assert {step: found[step] for step in alone} == alone
    workdir, started = start(place, "longer", 1, f"--config.train.steps={STEPS}")
    codes, (said,) = ended(place, workdir, started)
    assert codes == [2] and "train.steps" in said

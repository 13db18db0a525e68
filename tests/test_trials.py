"""Trials in processes of their own: halving, failures, kills, and going on."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from llm import config, files
from llm.errors import InputError
from llm.sweeps import search, trials
from llm.workloads import sweep as workload

pytestmark = pytest.mark.long

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"

# Stands for a training: its loss falls from 2 to its learning rate over 12 steps. It
# saves when it is asked to stop, and goes on from there.
RUN = """
    import json, os, pathlib, signal, sys, time
    config = json.loads(pathlib.Path(sys.argv[1]).read_text())["config"]
    folder = pathlib.Path(sys.argv[2])
    rate, spans = config["optimizer"]["learning_rate"], config["train"]["ema"]
    layers, saved = config["model"]["layers"], folder / "saved"
    begin = int(saved.read_text()) if saved.exists() else 0
    with open(folder / "begins", "a") as file:
        file.write(f"{begin} {os.getpid()}\\n")
    if layers == 9:
        sys.exit("llm: got nine layers; want fewer")
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    with open(folder / "metrics.jsonl", "a") as file:
        for step in range(begin + 1, 13):
            time.sleep(spans)
            loss = 2 + (rate - 2) * step / 12
            record = {"step": step, "validation_loss": loss}
            file.write(json.dumps(record) + "\\n")
            file.flush()
            if layers == 8 and step == 5 and begin == 0:
                asked.append(1)  # a preemption
            if asked:
                saved.write_text(str(step))
                sys.exit(75)
    result = {"validation_loss": loss, "steps": 12, "parameters": 7, "tokens": 99}
    (folder / "train.json").write_text(json.dumps(result))
"""
LOSS = trials.Wanted("validation_loss")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("trials") / "run.py"
    path.write_text(textwrap.dedent(RUN))
    return path


@pytest.fixture
def commanded(script, monkeypatch):
    """Trials run the script above."""

    def command(config, workdir):
        return [sys.executable, str(script), str(config), str(workdir)]

    monkeypatch.setattr(trials, "command", command)


def small(seconds=0.0):
    made = config.base()
    made.workload = "evaluate"  # nothing is prepared for it
    made.train.ema = seconds  # a step
    return made


def proposing(*rates, layers=()):
    values = [
        {"optimizer.learning_rate": rate, "model.layers": layers[n] if layers else 2}
        for n, rate in enumerate(rates)
    ]
    return lambda known: values[len(known)] if len(known) < len(values) else None


def begins(root, number):
    text = (root / "trials" / f"{number:04d}" / "begins").read_text()
    return [tuple(map(int, line.split())) for line in text.splitlines()]


def test_trials_run_and_the_best_is_told(tmp_path, commanded, capsys):
    found = trials.run(tmp_path, small(), proposing(0.5, 0.1, 0.3), LOSS, processes=2,
                       total=3)  # fmt: skip
    assert [t.status for t in found] == ["done"] * 3
    assert [t.value for t in found] == pytest.approx([0.5, 0.1, 0.3])
    assert (found[0].steps, found[0].parameters, found[0].tokens) == (12, 7, 99)
    assert trials.best(found, LOSS).number == 1
    assert trials.best(found, LOSS._replace(sign=-1)).number == 0
    assert trials.read(tmp_path) == found
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3 and told[-1].startswith("(3/3) trial ")
    # Nothing is run again.
    trials.run(tmp_path, small(), proposing(0.5, 0.1, 0.3), LOSS, processes=1, total=3)
    assert [len(begins(tmp_path, n)) for n in range(3)] == [1, 1, 1]


def test_one_that_fails_says_why_and_the_others_go_on(tmp_path, commanded):
    found = trials.run(tmp_path, small(), proposing(0.5, 0.1, layers=(9, 2)), LOSS,
                       processes=1, total=2)  # fmt: skip
    assert [t.status for t in found] == ["failed", "done"]
    assert found[0].reason == "got nine layers; want fewer"
    assert trials.best(found[:1], LOSS) is None


def test_a_metric_that_is_not_there(tmp_path, commanded):
    """One trial shows it; the others are not begun."""
    with pytest.raises(InputError, match=r"'rouge', of which trial 0.*want.*loss"):
        trials.run(tmp_path, small(), proposing(0.5, 0.1), trials.Wanted("rouge"),
                   processes=1, total=2)  # fmt: skip
    assert len(begins(tmp_path, 0)) == 1 and len(trials.read(tmp_path)) == 1


def test_one_that_is_preempted_goes_on(tmp_path, commanded):
    found = trials.run(tmp_path, small(), proposing(0.5, layers=(8,)), LOSS,
                       processes=1, total=1)  # fmt: skip
    assert found[0].status == "done"
    assert [step for step, _ in begins(tmp_path, 0)] == [0, 5]


def test_halving_stops_what_is_worse(tmp_path, commanded):
    """One after the other, best first: every later one is stopped at the first rung."""
    wanted = trials.Wanted("validation_loss", rungs=search.rungs(2, 3, 12), factor=3)
    found = trials.run(tmp_path, small(0.15), proposing(0.1, 0.9, 0.5), wanted,
                       processes=1, total=3)  # fmt: skip
    assert [t.status for t in found] == ["done", "halved", "halved"]
    assert found[0].at_rungs.keys() == {"2", "6"}
    assert [t.steps for t in found] == [12, 2, 2]
    assert found[1].value == pytest.approx(2 + (0.9 - 2) * 2 / 12)
    assert trials.best(found, wanted).number == 0


def test_halving_begins_at_the_first_validation():
    c = config.load(str(CONFIGS / "x"), "sweep")
    c.sweep.halving = 3
    assert workload.check(c)[1].rungs == (100,)
    c.sweep.first_rung = 200
    assert workload.check(c)[1].rungs == (200,)
    for knobs in ({"first_rung": 50}, {"halving": 1}, {"metric": "loss"}):
        wrong = c.copy_and_resolve_references()
        wrong.sweep.update(**knobs)
        with pytest.raises(InputError, match=r"sweep\.halving"):
            workload.check(wrong)


DRIVER = """
    import pathlib, signal, sys
    # What is started in the background of a shell ignores it, and so would this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path.insert(0, "{tests}")
    from test_trials import LOSS, proposing, small
    from llm.sweeps import trials
    trials.command = lambda config, workdir: [
        sys.executable, "{script}", str(config), str(workdir)]
    trials.run(pathlib.Path("{root}"), small(0.2), proposing(0.5, 0.1, 0.3), LOSS,
               processes=2, total=3)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_trials_end_with_the_sweep_and_go_on(tmp_path, script, number):
    text = textwrap.dedent(DRIVER).format(
        tests=pathlib.Path(__file__).parent, script=script, root=tmp_path
    )
    started = subprocess.Popen([sys.executable, "-c", text], stderr=subprocess.DEVNULL)
    logged = [tmp_path / "trials" / f"000{n}" / "metrics.jsonl" for n in (0, 1)]
    until(lambda: all(p.exists() and p.read_text().count("\n") > 1 for p in logged))
    os.kill(started.pid, number)
    started.wait(30)
    children = [begins(tmp_path, n)[0][1] for n in (0, 1)]
    until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in children))
    assert [t.status for t in trials.read(tmp_path)] == ["running", "running"]
    subprocess.run([sys.executable, "-c", text], check=True, timeout=60)
    found = trials.read(tmp_path)
    assert [t.status for t in found] == ["done"] * 3
    assert [t.value for t in found] == pytest.approx([0.5, 0.1, 0.3])
    for n in (0, 1):  # from where they were, and every step once
        assert [step > 0 for step, _ in begins(tmp_path, n)] == [False, True]
        steps = [
            json.loads(line)["step"] for line in logged[n].read_text().splitlines()
        ]
        assert steps == list(range(1, 13))


def until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_shares_of_the_machine(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,3")
    assert [trials.share(n, 2)[0]["CUDA_VISIBLE_DEVICES"] for n in (0, 1)] == [
        "0,3", "2"
    ]  # fmt: skip
    assert trials.share(0, 1) == ({}, ())
    with pytest.raises(InputError, match="at most 3"):
        trials.share(0, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("TPU_VISIBLE_CHIPS", "0,1")
    assert trials.share(1, 2)[0]["TPU_VISIBLE_CHIPS"] == "1"
    monkeypatch.setenv("TPU_VISIBLE_CHIPS", "")
    cores = sorted(core for n in (0, 1) for core in trials.share(n, 2)[1])
    assert cores == sorted(os.sched_getaffinity(0))


def test_one_sweep_at_a_time(tmp_path, commanded):
    with (
        files.lock(tmp_path, "runs trials"),
        pytest.raises(InputError, match="another process"),
    ):
        trials.run(tmp_path, small(), proposing(0.5), LOSS, processes=1, total=1)
    assert trials.read(tmp_path) == []
    trials.run(tmp_path, small(), proposing(0.5), LOSS, processes=1, total=1)


@pytest.mark.parametrize(
    "text",
    [
        "[{",
        "{}",
        '{"a": 1}',
        '[{"number": 0}]',
        "null",
        '[{"number": 0, "values": {}, "status": "dne"}]',
        '[{"number": 1, "values": {}}]',
    ],
)
def test_a_broken_record_is_one_line(tmp_path, text):
    (tmp_path / "trials.json").write_text(text)
    with pytest.raises(InputError, match=r"trials\.json"):
        trials.read(tmp_path)


def test_tuples_come_back(tmp_path, commanded):
    """A sweep over meshes goes on, and knows its choices again."""
    pytest.importorskip("optuna")
    space = (("mesh", "values", (("data", 1),), (("fsdp", 1),)),)
    axes = search.axes(space, small())
    values = axes[0].chosen(0)
    trials.run(tmp_path, small(), lambda known: None if known else values, LOSS,
               processes=1, total=1)  # fmt: skip
    (found,) = trials.read(tmp_path)
    assert found.values == values
    search.applied(small(), found.values)
    search.suggested(axes, 0, [search.Seen(found.values, found.value)])


def test_a_loser_is_judged_again(tmp_path, commanded):
    """One that halving gave up, and that was cut off before it had ended."""
    wanted = trials.Wanted("validation_loss", rungs=(2, 6), factor=2)
    kept = [
        trials.Trial(0, {"optimizer.learning_rate": 0.1}, "done", 0.1,
                     at_rungs={"2": 1.0, "6": 0.5}),
        trials.Trial(1, {"optimizer.learning_rate": 0.9}, at_rungs={"2": 1.9}),
    ]  # fmt: skip
    text = json.dumps([t._asdict() for t in kept])
    (tmp_path / "trials.json").write_text(text)
    found = trials.run(tmp_path, small(0.2), lambda known: None, wanted, processes=1,
                       total=2)  # fmt: skip
    assert (found[1].status, found[1].steps) == ("halved", 2)

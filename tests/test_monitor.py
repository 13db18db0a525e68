"""The metrics file after kills, the timer's arithmetic, the console's lines."""

import io
import json
import subprocess
import sys
import types

import numpy as np
import pytest

from llm import units
from llm.errors import InputError
from llm.training import metric_writer


def lines(workdir):
    return [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_one_line_a_step(tmp_path):
    with metric_writer.MetricWriter(tmp_path, resume_step=0) as writer:
        writer.write({"step": 10, "loss": np.float32(2.5), "mfu": None})
        # On the disk at once: nothing is lost by a kill here.
        assert lines(tmp_path) == [{"step": 10, "loss": 2.5, "mfu": None}]
        writer.write({"step": 20, "loss": 2.25, "mfu": 0.5})
        with pytest.raises(ValueError, match="step 20 logged after step 20"):
            writer.write({"step": 20, "loss": 2.25})
    assert [r["step"] for r in lines(tmp_path)] == [10, 20]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_not_finite_is_json(tmp_path):
    values = {"loss": float("nan"), "a": float("inf"), "b": float("-inf")}
    with metric_writer.MetricWriter(tmp_path, resume_step=0) as writer:
        writer.write({"step": 1, **values})

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=refuse)["loss"] == "NaN"
    (record,) = metric_writer.read(tmp_path)
    assert np.isnan(record["loss"])
    assert (record["a"], record["b"]) == (np.inf, -np.inf)


@pytest.mark.parametrize("torn", ["", '{"step": 6, "lo', '{"step": 6}', '{"step": 99'])
def test_resume_keeps_each_step_once(tmp_path, torn):
    with metric_writer.MetricWriter(tmp_path, resume_step=0) as writer:
        for step in range(1, 6):
            writer.write({"step": step, "loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    for resume_step in (3, 2):  # two restarts, the second from further back
        with metric_writer.MetricWriter(tmp_path, resume_step=resume_step) as writer:
            writer.write({"step": resume_step + 1, "loss": 2.0})
    assert [(r["step"], r["loss"]) for r in lines(tmp_path)] == [
        (1, 1.0), (2, 1.0), (3, 2.0),
    ]  # fmt: skip


def test_new_run_keeps_nothing(tmp_path):
    for _ in range(2):
        with metric_writer.MetricWriter(tmp_path, resume_step=0) as writer:
            writer.write({"step": 0, "validation_loss": 8.0})
    assert [r["step"] for r in lines(tmp_path)] == [0]


def test_resume_after_kill_9(tmp_path):
    # The process kills itself halfway through a line, as the kernel might.
    code = """
import os, signal, sys
from llm.training import metric_writer
writer = metric_writer.MetricWriter(sys.argv[1], resume_step=0)
for step in range(1, 8):
    writer.write({"step": step, "loss": 1 / step})
writer._file.write(b'{"step": 8, "loss": 0.1')
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    with metric_writer.MetricWriter(tmp_path, resume_step=6) as writer:
        for step in (7, 8, 9):
            writer.write({"step": step, "loss": 1 / step})
    expected = [{"step": s, "loss": 1 / s} for s in range(1, 10)]
    assert lines(tmp_path) == expected


def test_damaged_middle_is_bad_input(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl:2"):
        metric_writer.MetricWriter(tmp_path, resume_step=3)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import of it fails
    with pytest.raises(InputError, match="pip install wandb"):
        metric_writer.MetricWriter(tmp_path, resume_step=0, wandb=True)
    assert not list(tmp_path.iterdir())

    inits, logs = [], []
    run = types.SimpleNamespace(
        log=lambda values, step: logs.append((step, values)), finish=lambda: None
    )
    fake = types.SimpleNamespace(init=lambda **k: inits.append(k) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for resume_step in (0, 1):
        with metric_writer.MetricWriter(
            tmp_path, resume_step=resume_step, wandb=True, run_config={"seed": 0}
        ) as writer:
            writer.write({"step": resume_step + 1, "loss": 2.0})
    assert logs == [(1, {"loss": 2.0}), (2, {"loss": 2.0})]
    assert inits[0]["config"] == {"seed": 0}
    assert inits[0]["id"] == inits[1]["id"]  # a restart continues the same run


def test_step_timer():
    now = [100.0]
    timer = metric_writer.StepTimer(total_steps=100, clock=lambda: now[0])
    now[0] += 50  # compilation
    timer.restart(step=1, tokens=1000)
    now[0] += 10
    lap = timer.lap(step=11, tokens=11_000)
    assert lap == (1000.0, 1.0, 89.0) and timer.seconds == 60.0
    # 10 steps in 20 s, with a validation of 20 s that is no part of the speed but
    # part of what remains: 20 s in 20 steps so far.
    now[0] += 5
    with timer.pause():
        now[0] += 20
    assert timer.worked() == 15.0  # with the ten of the first window
    now[0] += 15
    assert timer.worked() == 15.0  # whatever is a window
    lap = timer.lap(step=21, tokens=21_000)
    assert lap.tokens_per_s == 500.0
    assert lap.steps_per_s == 0.5
    assert lap.eta_s == 79 * (1.5 + 1.0)  # 1.5 s: the mean of this window and before
    now[0] += 10
    assert timer.lap(step=100, tokens=100_000).eta_s == 0
    timer.restart(step=100, tokens=100_000)
    assert timer.worked() == 0.0 and timer.seconds == 110.0


RECORD = {
    "step": 120, "loss": 2.9134, "grad_norm": 0.842, "learning_rate": 0.019,
    "tokens_per_s": 12_400.0, "model_flops_per_s": 3.1e11, "mfu": 0.621, "eta_s": 192.0,
}  # fmt: skip
LINE = (
    "step 120/600  loss 2.913  |g| 0.84  lr 1.9e-02  12.4k tok/s  310 GFLOP/s"
    "  MFU 62.1%  ETA 3m12s"
)


def test_no_speed_before_the_first_window():
    first = {"tokens_per_s": 0.0, "model_flops_per_s": 0.0, "mfu": 0.0, "eta_s": 0.0}
    line = metric_writer.format_record(RECORD | first, 600)
    assert line == LINE[: LINE.index("  12.4k")]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_console_lines():
    stream = io.StringIO()
    with metric_writer.Console(600, stream) as console:
        console.log(RECORD)
        console.progress(121)
        console.log(RECORD | {"step": 130, "validation_loss": 2.95, "mfu": None})
        console.log(RECORD | {"step": 140, "mfu": None})
    first, unknown, second, third = stream.getvalue().splitlines()
    assert first == LINE
    assert "MFU unknown" in unknown and "flops.py" in unknown  # said once
    assert "loss 2.913  val 2.950" in second and "MFU unknown" in second
    assert third.startswith("step 140/600")
    assert "\x1b" not in stream.getvalue()


def test_console_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    with metric_writer.Console(600, stream) as console:
        console.log(RECORD)
        console.message("saved checkpoint 120")
        console.log(RECORD | {"step": 300, "validation_loss": 2.95})
    rows = stream.getvalue().split("\n")
    # What a terminal shows of each row is what follows the last clearing of it.
    shown = [row.split("\r\x1b[K")[-1] for row in rows]
    assert shown[0] == "saved checkpoint 120"
    assert shown[1].startswith("step 300/600") and "val 2.950" in shown[1]
    assert shown[2].startswith("█" * 12 + "░" * 12 + "  50%  step 300/600")
    assert len(shown[2]) == 59 and shown[3] == ""


@pytest.mark.parametrize(
    "shown, expected",
    [
        (units.count(999.4), "999"),
        (units.count(999.6), "1.00k"),
        (units.count(12_449), "12.4k"),
        (units.count(1_235_814_400), "1.24B"),
        (units.count(20), "20"),
        (units.quantity(9.996e12, "FLOP/s"), "10.0 TFLOP/s"),
        (units.quantity(0.5, "FLOP/s"), "0.50 FLOP/s"),
        (units.quantity(float("nan"), "FLOP/s"), "nan FLOP/s"),
        (units.size(16 * 2**30), "16 GiB"),
        (units.size(1023), "1023 B"),
        (units.duration(4.24), "4.2s"),
        (units.duration(59.7), "1m00s"),
        (units.duration(3599.9), "1h00m"),
        (units.duration(5 * 3600 + 420), "5h07m"),
        (units.duration(12 * 86400 + 3 * 3600), "12d03h"),
        (units.duration(float("inf")), "unknown"),
    ],
)
def test_units(shown, expected):
    assert shown == expected

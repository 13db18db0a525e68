"""Event files: what stands in them, and TensorBoard's own reader where it is
installed."""

import struct
import subprocess
import sys

import pytest

from llm.training import tensorboard


def test_event_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard.time, "time", lambda: 1.0)
    with tensorboard.EventWriter(tmp_path, first_step=300) as writer:
        writer.scalars(301, {"loss": 2.5, "big": 1e300})
    events = _events(next(tmp_path.iterdir()).read_bytes())
    wall = "09 000000000000f03f"
    # The first record of every event file of TensorFlow, but for its step of 0.
    assert events[0] == bytes.fromhex(f"{wall} 1a0d") + b"brain.Event:2"
    assert events[1] == bytes.fromhex(f"{wall} 10ac02 3a02 0801")  # START at step 300
    assert events[2] == bytes.fromhex(
        f"{wall} 10ad02 2a19"  # step 301, a summary of 25 bytes
        "0a0b 0a04 6c6f7373 15 00002040"  # loss = 2.5
        "0a0a 0a03 626967 15 0000807f"  # big = inf in float32
    )


def _events(data):
    events = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(data[12 : 12 + length])
        data = data[16 + length :]
    return events


@pytest.mark.oracle
def test_tensorboard_reads_each_step_once(tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the tensorboard package is in the oracle extra",
    )
    with tensorboard.EventWriter(tmp_path) as writer:
        for step in range(1, 7):
            writer.scalars(step, {"loss": float(step), "mfu": 0.5})
    # A killed process tore the last record; the next one goes on from step 4.
    (first,) = tmp_path.iterdir()
    first.write_bytes(first.read_bytes()[:-7])
    with tensorboard.EventWriter(tmp_path, first_step=5) as writer:
        for step in range(5, 9):
            writer.scalars(step, {"loss": 10.0 * step, "nan": float("nan")})

    reader = event_accumulator.EventAccumulator(str(tmp_path))
    reader.Reload()
    assert sorted(reader.Tags()["scalars"]) == ["loss", "mfu", "nan"]
    seen = [(e.step, e.value) for e in reader.Scalars("loss")]
    assert seen == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 50), (6, 60), (7, 70), (8, 80)]
    assert reader.file_version == 2.0


@pytest.mark.oracle
def test_a_training_does_not_import_torch():
    """Nor does what it imports, where torch is installed."""
    pytest.importorskip("torch")
    code = "import sys, llm.workloads.pipeline; print('torch' in sys.modules)"
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"

"""The watchdog by a clock that the test turns, and once for real."""

import subprocess
import sys

from llm.training.watchdog import HUNG, Watchdog


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def watched(tmp_path, **knobs):
    clock, ended = Clock(), []
    dog = Watchdog(str(tmp_path), clock=clock, end=ended.append, **knobs)
    dog.beat(1)
    for step in range(2, 9):
        clock.now += 2.0
        dog.beat(step)
    return dog, clock, ended


def test_a_step_that_takes_many_times_the_median(tmp_path, capsys):
    dog, clock, ended = watched(tmp_path, times=10.0, least=5.0)
    clock.now += 20.0
    assert not dog.look() and not ended
    clock.now += 0.1
    assert dog.look() and ended == [HUNG]
    assert "step 9 takes 20 s, the median step 2.00 s" in capsys.readouterr().err
    stacks = (tmp_path / "hang-9.txt").read_text()
    assert "most recent call first" in stacks and "test_watchdog.py" in stacks


def test_short_steps_may_wait(tmp_path):
    dog, clock, ended = watched(tmp_path, times=10.0, least=60.0)
    clock.now += 59.0
    assert not dog.look()
    clock.now += 2.0
    assert dog.look() and ended


def test_pauses_and_sleep_do_not_count(tmp_path):
    dog, clock, ended = watched(tmp_path, times=10.0, least=5.0)
    with dog.pause():
        clock.now += 1000.0
        assert not dog.look()
    clock.now += 19.0
    assert not dog.look()
    clock.now += 500.0
    assert not dog.look(asleep=500.0)
    clock.now += 2.0
    assert dog.look() and ended == [HUNG]


def test_nothing_to_compare_with_and_off(tmp_path):
    clock, ended = Clock(), []
    dog = Watchdog(str(tmp_path), times=10.0, least=1.0, clock=clock, end=ended.append)
    clock.now = 1e6
    assert not dog.look()  # before the first step: a compilation
    dog.beat(1)
    clock.now += 1e6
    assert not dog.look()
    dog, clock, ended = watched(tmp_path, times=0.0, longest=9.0)
    clock.now += 1e6
    assert not dog.look() and not ended
    with dog.pause(8):  # the other limit holds without the first one
        clock.now += 10.0
        assert dog.look() and ended == [HUNG]


def test_silence_where_there_is_no_median(tmp_path, capsys):
    clock, ended = Clock(), []
    dog = Watchdog(
        str(tmp_path), times=10.0, longest=600.0, clock=clock, end=ended.append
    )
    clock.now = 600.0
    assert not dog.look()
    dog.beat(1)  # a compilation
    clock.now += 600.0
    assert not dog.look(asleep=0.0)
    clock.now += 1.0
    assert dog.look() and ended == [HUNG]
    said = "step 2 takes 601 s without a sign of life: it hangs"
    assert said in capsys.readouterr().err and (tmp_path / "hang-2.txt").exists()


def test_silence_before_and_after_a_step_is_called_so(tmp_path, capsys):
    for step, said in ((0, "the start takes"), (500, "what follows step 500 takes")):
        clock, ended = Clock(), []
        dog = Watchdog(
            str(tmp_path), times=10.0, longest=60.0, step=step, clock=clock,
            end=ended.append,
        )  # fmt: skip
        with dog.pause():
            clock.now = 61.0
            assert dog.look() and ended == [HUNG]
        assert said in capsys.readouterr().err
        assert (tmp_path / f"hang-{step + 1}.txt").exists()


def test_silence_in_a_pause(tmp_path, capsys):
    dog, clock, ended = watched(tmp_path, times=10.0, longest=600.0)
    with dog.pause():
        for _ in range(5):  # batches of a validation
            clock.now += 500.0
            dog.alive()
        clock.now += 700.0
        assert not dog.look(asleep=100.0)
        clock.now += 1.0
        assert dog.look() and ended == [HUNG]
    said = "what follows step 8 takes 601 s without a sign of life"
    assert said in capsys.readouterr().err


def test_a_process_that_hangs(tmp_path):
    script = f"""
import time
from llm.training import watchdog
watchdog._LOOK = 0.05
with watchdog.Watchdog({str(tmp_path)!r}, times=3.0, least=0.3) as dog:
    for step in range(1, 9):
        dog.beat(step)
        time.sleep(0.01)
    time.sleep(60)
"""
    made = subprocess.run([sys.executable, "-c", script], timeout=30)
    assert made.returncode == HUNG
    assert (
        "time.sleep" not in (tmp_path / "hang-9.txt").read_text()
    )  # stacks, no source
    assert '"<string>", line 9' in (tmp_path / "hang-9.txt").read_text()

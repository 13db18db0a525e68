"""Wall time by a clock that the test turns, and the age of a real process."""

import json
import subprocess
import sys
import time

import pytest

from llm import goodput


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_three_processes_and_the_time_between_them(tmp_path):
    clock = Clock()
    wall = goodput.Wall(tmp_path, began=990.0, clock=clock)
    assert wall.seconds == wall.down == wall.share(5.0) * 0
    for clock.now in (1000.0, 1010.0):
        wall.note()
    assert (wall.seconds, wall.down, wall.share(5.0)) == (20.0, 0.0, 0.25)

    clock.now = 1050.0
    wall = goodput.Wall(tmp_path, began=1040.0, clock=clock)
    assert wall.seconds == 20.0  # as long as this one has not said a word
    wall.note()
    assert (wall.seconds, wall.down, wall.share(6.0)) == (60.0, 30.0, 0.1)

    clock.now = 1100.0
    other = goodput.Wall(tmp_path, began=1060.0, clock=clock, silent=True)
    other.note()
    assert (other.seconds, other.down) == (110.0, 40.0)
    held = json.loads((tmp_path / "processes.json").read_text())
    assert held == [[990.0, 1010.0], [1040.0, 1050.0]]


def test_a_clock_that_was_set_back_and_a_broken_file(tmp_path):
    clock = Clock()
    goodput.Wall(tmp_path, began=900.0, clock=clock).note()
    clock.now = 890.0
    wall = goodput.Wall(tmp_path, began=880.0, clock=clock)
    wall.note()
    assert wall.seconds == wall.down == 0.0 and wall.share(3.0) == 1.0
    (tmp_path / "processes.json").write_text("[[1,")
    assert goodput.Wall(tmp_path).seconds == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_process_knows_when_it_began():
    script = "import time; time.sleep(1); from llm import goodput; "
    script += "print(goodput.process_start())"
    before = time.time()
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert before - 0.05 <= float(said.stdout) <= before + 0.5

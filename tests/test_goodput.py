"""Wall time by a clock that the test turns."""

import json

import pytest

from llm.training import goodput


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def written(folder):
    return json.loads((folder / "processes.json").read_text())


def test_three_processes_and_the_time_between_them(tmp_path):
    clock = Clock()
    wall = goodput.Wall(tmp_path, clock=clock)
    assert wall.seconds == wall.down == wall.share(0.0) == 0.0
    for clock.now in (1010.0, 1020.0):
        wall.note()
    assert (wall.seconds, wall.down, wall.share(5.0)) == (20.0, 0.0, 0.25)

    clock.now = 1050.0
    wall = goodput.Wall(tmp_path, clock=clock)
    assert wall.seconds == 20.0  # as long as this one has not said a word
    wall.close()
    assert written(tmp_path) == [[1000.0, 1020.0]]  # nor will, if it has nothing to do
    clock.now = 1060.0
    wall.note()
    assert (wall.seconds, wall.down, wall.share(6.0)) == (60.0, 30.0, 0.1)

    clock.now = 1070.0
    other = goodput.Wall(tmp_path, clock=clock, silent=True)
    clock.now = 1100.0
    other.note()
    assert (other.seconds, other.down) == (100.0, 40.0)
    assert written(tmp_path) == [[1000.0, 1020.0], [1050.0, 1060.0]]


def test_the_file_is_written_now_and_then_and_at_the_end(tmp_path):
    clock = Clock()
    wall = goodput.Wall(tmp_path, clock=clock)
    for clock.now in (1000.0, 1000.5, 1001.5):
        wall.note()
    assert wall.seconds == 1.5 and written(tmp_path) == [[1000.0, 1000.0]]
    clock.now = 1001.75
    wall.close()
    assert written(tmp_path) == [[1000.0, 1001.75]]


def test_a_clock_that_was_set_back(tmp_path):
    clock = Clock()
    wall = goodput.Wall(tmp_path, clock=clock)
    clock.now = 1100.0
    wall.note()
    clock.now = 500.0
    wall = goodput.Wall(tmp_path, clock=clock)
    clock.now = 550.0
    wall.note()
    assert (wall.seconds, wall.down) == (150.0, 0.0)
    assert wall.share(75.0) == 0.5
    clock.now = 400.0
    wall.note()
    assert wall.seconds == 100.0


@pytest.mark.parametrize("held", ["[[1,", "{}", "[1]", "null"])
def test_a_broken_file(tmp_path, held):
    (tmp_path / "processes.json").write_text(held)
    assert goodput.Wall(tmp_path).seconds == 0.0

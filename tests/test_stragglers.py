"""Waits by a clock that is set by hand, and who is behind."""

import pytest

from llm.training import stragglers
from llm.training.stragglers import behind


def test_means_since_the_last_time():
    now = [0.0]
    waits = stragglers.Waits(clock=lambda: now[0])
    for seconds in (5.0, 1.0, 3.0):
        now[0] += 10
        with waits:
            now[0] += seconds
        if seconds == 5.0:
            waits.restart()  # a first batch
    assert waits.of_each() == [2.0] and waits.of_each() == [0.0]


@pytest.mark.parametrize(
    "waits, step, who",
    [
        ([1.0], 1.0, None),
        ([0.01, 0.012], 1.0, None),
        ([0.01, 0.2], 1.0, None),  # far more than the other, but little of a step
        ([0.01, 0.6], 1.0, 1),
        ([0.9, 0.01, 0.02, 0.01], 1.0, 0),
        ([0.5, 0.6, 0.7, 0.6], 1.0, None),  # all wait: nobody is behind
    ],
)
def test_who_is_behind(waits, step, who):
    assert behind(waits, step) == who

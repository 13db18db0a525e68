"""Which steps are traced, and what is said of those that are not."""

import jax
import pytest
from test_train import Log, play

from llm.errors import Diverged, InputError
from llm.training import profiling


@pytest.fixture
def traced(monkeypatch, tmp_path):
    """What is called of the profiler of JAX, which traces nothing."""
    called = []
    start = lambda folder: called.append(f"start {folder.name}")  # noqa: E731
    monkeypatch.setattr(jax.profiler, "start_trace", start)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: called.append("stop"))
    return called


@pytest.mark.parametrize(
    "profile, first, said",
    [
        ((3, 4), 0, "profile of steps 3 to 4: profile"),
        ((1, 10), 0, "profile of steps 1 to 10: profile"),
        ((8, 12), 0, "profile of steps 8 to 10 alone, of 8 to 12: profile"),
        ((3, 8), 5, "profile of steps 6 to 8 alone, of 3 to 8: profile"),
        ((3, 4), 5, "no profile: this process begins with step 6, after steps 3 to 4"),
        ((0, 0), 5, ""),
    ],
)
def test_a_trace_says_which_steps_it_has(traced, profile, first, said):
    _, _, log = play(profile=profile, first=first)
    assert log.said == [said] * bool(said)
    has = said.startswith("profile")
    assert traced == ["start profile", "stop"] * has


def test_a_run_that_ends_in_a_trace_says_so(traced):
    log = Log()
    with pytest.raises(Diverged):
        play(lambda at: float("nan") if at == 5 else 1.0, profile=(3, 8), log=log)
    (said,) = log.said
    assert said.startswith("profile of steps 3 to ") and "alone, of 3 to 8" in said
    assert traced == ["start profile", "stop"]


def test_steps_that_come_twice_are_traced_once(traced):
    """As those do that are learned again after a rollback."""
    said = []
    profiler = profiling.Profiler(".", 2, 3, said.append)
    for step in (1, 2, 1, 2, 3, 1, 2, 3, 4):
        profiler.before(step)
        profiler.after(step, ())
    assert traced == ["start profile", "stop"]
    assert said == ["profile of steps 2 to 3: profile"]


@pytest.mark.parametrize(
    "given",
    [("a", "b"), (1.5, 2.5), (1.0, 2.0), (True, 2), (3,), (0, 2), (5, 2), (1, 2, 3),
     (100, 103), (4, 4)],
)  # fmt: skip
def test_steps_that_cannot_be_traced(given):
    with pytest.raises(InputError, match="profile_steps"):
        profiling.check(given, 3)


def test_steps_that_can():
    for given in ((), (1, 1), (3, 3), (2, 5)):
        profiling.check(given, 3)

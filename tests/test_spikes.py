"""Spikes are found as a plain loop finds them, and nothing is learned from them."""

import contextlib
import json
import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_train import B, T, parts, start

from llm import tree
from llm.checkpoint import Checkpoints, LoopState, State
from llm.errors import Diverged
from llm.training import metric_writer, spikes, train_loop, train_step
from llm.training.goodput import Wall
from llm.training.metric_writer import Console, MetricWriter
from llm.training.telemetry import Telemetry

pytestmark = pytest.mark.long


def test_bounds_as_written_out():
    loop = LoopState()
    for at in range(1, 16):
        spikes.note(loop, at, {"objective": 2.0 + 0.1 * (at % 3), "grad_norm": 1.0})
    # What is known when step 17 begins is up to 15: one too few.
    assert spikes.bounds(loop, 17) == (math.inf, math.inf)
    spikes.note(loop, 16, {"objective": 2.1, "grad_norm": 1.0})
    assert spikes.bounds(loop, 17) == (math.inf, math.inf)
    found = spikes.bounds(loop, 18)
    losses = [2.0 + 0.1 * (at % 3) for at in range(1, 16)] + [2.1]
    spread = 1.4826 * statistics.median(abs(x - 2.1) for x in losses)
    assert found.objective == pytest.approx(2.1 + 10 * spread)
    assert found.grad_norm == pytest.approx(1.0 + 10 * 0.01)  # all alike
    assert spikes.bounds(LoopState(skipped=[18]), 18) == (-math.inf, -math.inf)


def test_a_window_is_all_that_counts_and_outlives_json():
    loop = LoopState()
    for at in range(1, 1001):
        spikes.note(loop, at, {"objective": float(at), "grad_norm": at * math.pi})
    again = LoopState.of(json.loads(json.dumps(loop.record())))
    assert again == loop and len(loop.recent) == spikes.WINDOW + 2
    middle = statistics.median(range(1002 - spikes.WINDOW, 1001))  # up to step 1000
    spread = 1.4826 * spikes.WINDOW / 4
    found = spikes.bounds(again, 1002).objective
    assert found == pytest.approx(middle + 10 * spread, rel=1e-3)


@pytest.mark.parametrize(
    ("bounds", "learned"),
    [
        (spikes.Bounds(math.inf, math.inf), True),
        (spikes.Bounds(0.1, math.inf), False),
        (spikes.Bounds(math.inf, 1e-6), False),
        (spikes.NOTHING, False),
    ],
)
def test_a_skipped_step_leaves_all_but_its_number(bounds, learned):
    of, tx, step = parts(name="adamw", ema=0.9)
    state, batch = start(of, tx, ema=True), tiny.batch(B, T)
    plain, _ = jax.jit(step)(state, batch)
    made, metrics = jax.jit(step)(state, batch, train_step.NOTHING, bounds)
    assert int(made.step) == 1 and metrics["skipped"] == 1.0 - learned
    want = plain if learned else state._replace(step=jnp.int32(1))
    for name, leaf in tree.named_leaves(want).items():
        np.testing.assert_array_equal(leaf, tree.named_leaves(made)[name], name)


def test_what_is_not_finite_is_never_learned():
    of, tx, step = parts()
    state, batch = start(of, tx), tiny.batch(B, T)
    broken = state._replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    endless = spikes.Bounds(math.inf, math.inf)
    _, metrics = jax.jit(step)(broken, batch, train_step.NOTHING, endless)
    assert metrics["skipped"] == 1.0


def losses(at, seed=0):
    return 3.0 - 0.01 * at + 0.05 * float(np.random.default_rng([seed, at]).random())


def play(workdir, policy, bad, steps=60, until=0, every=7, ruinous=(), **keep):
    """A run that sums the numbers of its steps, with real checkpoints and logs.

    Args:
      bad: what the loss is at some steps.
      until: the step after which the process is gone, without a word.
      ruinous: steps that look well, and whose update makes all later losses NaN.
      keep: how many checkpoints.
    """
    knobs = train_step.Knobs(
        steps=steps,
        tokens_per_step=1,
        log_every=5,
        spike=policy,
        checkpoint_every=every,
    )

    @jax.jit
    def learn(state, at, loss, ruins, bounds):
        loss = jnp.where(state.params["w"][0] < 0, jnp.nan, loss)
        learned = jnp.isfinite(loss) & (loss <= bounds.objective)
        total = state.params["w"] + jnp.where(learned, at, 0)
        total = jnp.where(learned & ruins, -(10**6), total)
        metrics = {"loss": loss, "objective": loss, "grad_norm": 1.0}
        metrics["skipped"] = 1.0 - learned
        return state._replace(step=state.step + 1, params={"w": total}), metrics

    def step(state, at, bounds):
        if at == until:
            raise KeyboardInterrupt
        return learn(state, at, bad.get(at, losses(at)), at in ruinous, bounds)

    params = {"w": jnp.zeros(1, jnp.int32)}
    state = State(jnp.int32(0), params, None, {"count": jnp.zeros(1)})
    checkpoints = Checkpoints(str(workdir), state, **keep)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    state, loop = checkpoints.restore(abstract) or (state, LoopState())
    with (
        MetricWriter(workdir, resume_step=int(state.step)) as writer,
        Console(steps) as console,
        contextlib.closing(checkpoints),
    ):
        return fit(
            step, state, loop, knobs, checkpoints, writer, console, Wall(workdir)
        )


def fit(step, state, loop, knobs, checkpoints, writer, console, wall):
    """The loop on batches that are the number of their step."""
    program = train_loop.Program(
        step=step, validate=None,
        batches=lambda first: iter(range(first + 1, 10**6)),
        validation=lambda: [], documents=lambda at: [f"document-{at}"],
        learning_rate=lambda at: 0.0,
    )  # fmt: skip
    first = int(state.step)
    watch = Telemetry(knobs, loop, first, writer=writer, console=console, wall=wall)
    return train_loop.fit(
        program, state, loop, knobs=knobs, checkpoints=checkpoints, telemetry=watch
    )


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_what_is_learned_lacks_the_spikes(policy, tmp_path):
    state, loop = play(tmp_path, policy, {30: 9.0, 45: math.nan})
    assert state.params["w"].tolist() == [sum(range(1, 61)) - 30 - 45]
    assert loop.skipped == [30, 45]
    told = [(e["step"], e["event"]) for e in loop.events]
    if policy == "skip":
        assert told == [(30, "spike"), (45, "spike")]
    else:
        assert told == [(30, "spike"), (28, "rollback"),
                        (45, "spike"), (42, "rollback")]  # fmt: skip
    assert "document-29" in loop.events[0]["message"]
    assert [r["step"] for r in metric_writer.read(tmp_path)] == list(range(5, 61, 5))


@pytest.mark.parametrize("policy", ["skip", "rollback"])
@pytest.mark.parametrize("until", [29, 31, 32, 36, 46, 50])
def test_a_killed_run_skips_the_same(policy, until, tmp_path):
    bad = {30: 9.0, 31: 3.2, 45: math.inf}
    _, want = play(tmp_path / "whole", policy, bad)
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path / "killed", policy, bad, until=until)
    state, loop = play(tmp_path / "killed", policy, bad)
    assert loop.skipped == want.skipped == [30, 45]
    assert state.params["w"].tolist() == [sum(range(1, 61)) - 30 - 45]
    assert loop.recent == want.recent


def kept(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


RUINS = [
    # Between checkpoints: back to 8 for the first spike, and again without 10.
    (10, [10, 11, 12], [(11, "spike"), (8, "rollback"), (12, "spike"), (10, "spike"),
                        (8, "rollback")]),
    # In a checkpoint, of step 12: that is taken back too.
    (12, [12, 13, 14], [(13, "spike"), (12, "rollback"), (14, "spike"), (12, "spike"),
                        (8, "rollback")]),
    # Right before one that is due: it is written once a step is learned.
    (15, [15, 16, 17], [(16, "spike"), (12, "rollback"), (17, "spike"), (15, "spike"),
                        (12, "rollback")]),
]  # fmt: skip


@pytest.mark.parametrize("ruin, skipped, told", RUINS)
def test_a_step_that_ruins_the_weights_is_left_out(ruin, skipped, told, tmp_path):
    state, loop = play(
        tmp_path, "rollback", {}, 30, every=4, ruinous=[ruin], keep_best=0
    )
    assert loop.skipped == skipped
    assert [(e["step"], e["event"]) for e in loop.events] == told
    assert state.params["w"].tolist() == [sum(range(1, 31)) - sum(skipped)]
    assert kept(tmp_path) == [28, 30] and loop.saved == 30


@pytest.mark.parametrize("ruin", [12, 15])
@pytest.mark.parametrize("until", [12, 13, 14, 18])
def test_a_killed_run_leaves_out_the_same(ruin, until, tmp_path):
    """However often it is killed: whenever it gets to a step once more."""
    knobs = {"every": 4, "ruinous": [ruin], "keep_best": 0}
    want, of = play(tmp_path / "whole", "rollback", {}, 30, **knobs)
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path / "killed", "rollback", {}, 30, until=until, **knobs)
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path / "killed", "rollback", {}, 30, until=until + 3, **knobs)
    state, loop = play(tmp_path / "killed", "rollback", {}, 30, **knobs)
    assert state.params["w"].tolist() == want.params["w"].tolist()
    assert (loop.skipped, loop.recent) == (of.skipped, of.recent)


@pytest.mark.parametrize(
    "policy, ruin, last, good",
    [
        ("skip", 10, 8, "step 8"),
        ("skip", 8, 8, "none"),
        ("rollback", 8, 8, "none"),
        ("rollback", 2, 0, "none"),
    ],
)
def test_without_a_good_checkpoint_it_ends(policy, ruin, last, good, tmp_path, capsys):
    """One line says what is left; a checkpoint right before the spikes is not good."""
    keep = {"keep_last": 1, "keep_best": 0}
    with pytest.raises(Diverged):
        play(tmp_path, policy, {}, 30, every=4, ruinous=[ruin], **keep)
    (said,) = (s for s in capsys.readouterr().err.splitlines() if s[:4] == "llm:")
    assert "more than 10 of 128 steps are left out" in said
    assert f"last good checkpoint: {good};" in said
    assert kept(tmp_path) == ([last] if last else [])


def test_what_is_due_at_a_spike_is_saved_at_the_next_step(tmp_path):
    _, loop = play(tmp_path, "skip", {8: math.nan, 9: math.nan}, 11, every=4)
    assert kept(tmp_path) == [10, 11] and loop.saved == 11


def test_a_run_that_ends_with_a_spike_says_so(tmp_path):
    keep = {"keep_last": 1, "keep_best": 0}
    state, loop = play(tmp_path, "skip", {12: math.nan}, 12, every=5, **keep)
    assert state.params["w"].tolist() == [sum(range(1, 12))]
    # The good one stays beside it.
    assert kept(tmp_path) == [10, 12] and loop.saved == 10
    assert "last good checkpoint: step 10" in loop.events[-1]["message"]


def test_a_run_that_only_spikes_ends(tmp_path):
    bad = dict.fromkeys(range(40, 61), math.nan)
    with pytest.raises(Diverged) as ended:
        play(tmp_path, "skip", bad)
    assert ended.value.code == 1


def test_off_ends_at_once(tmp_path):
    step = lambda state, at, bounds: (  # noqa: E731
        state._replace(step=state.step + 1),
        {"loss": math.nan, "objective": math.nan, "grad_norm": 1.0},
    )
    state = State(jnp.int32(0), {}, None, {})
    knobs = train_step.Knobs(steps=5, tokens_per_step=1)
    with MetricWriter(tmp_path, resume_step=0) as writer, pytest.raises(Diverged):
        checkpoints = Checkpoints(str(tmp_path), state)
        wall = Wall(tmp_path)
        fit(step, state, LoopState(), knobs, checkpoints, writer, Console(5), wall)

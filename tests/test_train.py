"""The update against big batches and formulas; the loop against scripted losses."""

import copy
import gc
import os
import signal
import weakref

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from llm import registry, sharding, tree
from llm.checkpoint import LoopState, State
from llm.errors import Diverged, InputError, Interrupted, Preempted
from llm.nn.contract import with_head
from llm.precision import FLOAT32, Policy
from llm.training import optim, telemetry, train_loop, train_step
from llm.training.goodput import Wall
from llm.training.telemetry import Telemetry
from llm.training.watchdog import Watchdog
from llm.workloads import train as workload

B, T = 16, 12


def parts(accumulate=1, name="sgd", dropout=0.0, clip_norm=0.0, ema=0.0, policy=FLOAT32,
          z_loss=1e-3, **knobs):  # fmt: skip
    """(init, tx, step) of a tiny model."""
    of = tiny.model(dropout=dropout, policy=policy)
    boxed = jax.eval_shape(lambda: tiny.init(of, jax.random.key(0)))
    factor = optim.schedule("constant", 10, warmup=0.0)
    tx = optim.optimizer(
        name, factor, train_step.logical_axes(boxed), learning_rate=0.1, **knobs
    )
    step = train_step.build_step(
        with_head(of),
        registry.build("objectives", {"name": "causal_lm", "z_loss": z_loss}),
        tx,
        train_step.Knobs(
            steps=10,
            tokens_per_step=B * T,
            accumulate=accumulate,
            clip_norm=clip_norm,
            ema=ema,
            seed=3,
        ),
        policy,
    )
    return of, tx, step


def start(of, tx, ema=False):
    params = jax.tree.map(jnp.asarray, tiny.params(of))
    average = jax.tree.map(jnp.copy, params) if ema else None
    return State(jnp.int32(0), params, average, tx.init(params))


def unequal(seed=0):
    """A batch in which most rows count few tokens and one counts all."""
    batch = tiny.batch(B, T, seed)
    rng = np.random.default_rng(seed + 100)
    share = np.array([1.0] + [0.05] * (B - 1))
    batch["weights"] = (rng.random((B, T)) < share[:, None]).astype(np.int32)
    return batch


@pytest.fixture(scope="module")
def whole():
    """The update of the big batch, with dropout."""
    of, tx, step = parts(dropout=0.3)
    state = start(of, tx)
    after, metrics = jax.jit(step)(state, unequal())
    return of, state, after, metrics


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "accumulate", [4, pytest.param(2, marks=LONG), pytest.param(16, marks=LONG)]
)
def test_accumulation_is_the_big_batch(whole, accumulate):
    of, state, want, want_metrics = whole
    _, tx, step = parts(accumulate, dropout=0.3)
    after, metrics = jax.jit(step)(start(of, tx), unequal())
    for name, before in tree.named_leaves(state.params).items():
        a = np.asarray(tree.named_leaves(after.params)[name] - before, np.float64)
        b = np.asarray(tree.named_leaves(want.params)[name] - before, np.float64)
        # The update itself is a difference of floats near one: compare the momentum.
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b), name
    for a, b in zip(
        jax.tree.leaves(after.opt_state), jax.tree.leaves(want.opt_state), strict=True
    ):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) <= 1e-6 * np.linalg.norm(b)
    assert metrics.keys() == want_metrics.keys()
    for name in metrics:
        np.testing.assert_allclose(metrics[name], want_metrics[name], rtol=1e-6)


def test_dropout_differs_by_step_and_seed(whole):
    _, state, after, _ = whole
    _, _, step = parts(dropout=0.3)
    later, _ = jax.jit(step)(state._replace(step=jnp.int32(1)), unequal())
    _, _, without = parts()
    plain, _ = jax.jit(without)(state, unequal())
    name = "stack/layer/mlp/up/kernel"
    seen = [tree.named_leaves(s.params)[name] for s in (after, later, plain)]
    assert not np.allclose(seen[0], seen[1], atol=1e-5)
    assert not np.allclose(seen[0], seen[2], atol=1e-5)


def test_update_is_the_mean_gradient_written_out():
    """Weighted mean over the tokens of the whole batch, clipped by the global norm."""
    of, tx, step = parts(clip_norm=0.05, weight_decay=0.0, z_loss=0.0)
    state, batch = start(of, tx), unequal()
    inputs = tiny.packed([[[1]]], T)._replace(
        tokens_BT=batch["tokens"], positions_BT=batch["positions"],
        segments_BT=batch["segments"], index_B=np.arange(B),
    )  # fmt: skip

    def mean(params):
        logits = tiny.logits(of, params, inputs)
        nll = -jnp.take_along_axis(
            jax.nn.log_softmax(logits), batch["targets"][..., None], -1
        )[..., 0]
        return jnp.sum(nll * batch["weights"]) / batch["weights"].sum()

    loss, gradient = jax.jit(jax.value_and_grad(mean))(state.params)
    norm = np.sqrt(sum((np.asarray(g) ** 2).sum() for g in jax.tree.leaves(gradient)))
    assert norm > 0.05
    after, metrics = jax.jit(step)(state, batch)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
    jax.tree.map(
        lambda new, old, g: np.testing.assert_allclose(
            new, old - 0.1 * np.asarray(g) * 0.05 / norm, atol=1e-6
        ),
        after.params, state.params, gradient,
    )  # fmt: skip


def test_average_of_parameters():
    of, tx, step = parts(ema=0.3, weight_decay=0.0)
    state, step = start(of, tx, ema=True), jax.jit(step)
    name = "stack/layer/mlp/up/kernel"
    average = np.asarray(tree.named_leaves(state.params)[name])
    for at in range(6):
        state, _ = step(state, tiny.batch(B, T, at))
        held = min(0.3, (1 + at) / (10 + at))
        new = np.asarray(tree.named_leaves(state.params)[name])
        average = held * average + (1 - held) * new
        got = tree.named_leaves(state.ema)[name]
        np.testing.assert_allclose(got, average, rtol=1e-5, atol=1e-6)
    assert np.abs(got - new).max() > 1e-6


def test_a_batch_without_targets_changes_nothing():
    of, tx, step = parts(weight_decay=0.0)
    batch = tiny.batch(B, T) | {"weights": np.zeros((B, T), np.int32)}
    state = start(of, tx)
    after, metrics = jax.jit(step)(state, batch)
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    assert all(np.isfinite(value) for value in metrics.values())


MESHES = [
    pytest.param("replicated", (("data", -1),), 1, 1, marks=LONG),
    pytest.param("fsdp", (("data", -1),), 2, 8, marks=LONG),
    ("fsdp", (("fsdp", 4), ("tensor", 2)), 1, 8),
]


@pytest.fixture(scope="module")
def alone():
    """Three steps of AdamW on one device.

    Its epsilon is not so small that rounding of next to no gradient is all of a step.
    """
    of, tx, step = parts(name="adamw", dropout=0.2, clip_norm=1.0, epsilon=1e-5)
    state, step, losses = start(of, tx), jax.jit(step), []
    for at in range(3):
        state, metrics = step(state, unequal(at))
        losses.append(float(metrics["loss"]))
    return state, losses


@pytest.mark.parametrize("rules, axes, accumulate, ways", MESHES)
def test_sharded_equals_single(devices, alone, rules, axes, accumulate, ways):
    """Losses agree to 1e-5 and parameters to 1e-4: Adam divides small numbers."""
    mesh = sharding.make_mesh(axes, devices)
    policy = Policy("float32", "cpu", devices=8)
    of, tx, step = parts(
        accumulate, "adamw", dropout=0.2, clip_norm=1.0, policy=policy, epsilon=1e-5
    )
    init = lambda key: tiny.init(of, key)  # noqa: E731
    abstract = train_step.abstract_state(init, tx, mesh, rules)
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    state = jax.device_put(start(of, tx), places)
    kernel = state.params["stack"]["layer"]["mlp"]["gate"]["kernel"]
    assert kernel.addressable_shards[0].data.size * ways == kernel.size
    # Moments lie where their parameters do.
    moments = tree.named_leaves(state.opt_state)
    of_kernel = [m for n, m in moments.items() if n.endswith("layer/mlp/gate/kernel")]
    assert len(of_kernel) == 2
    assert all(m.sharding.is_equivalent_to(kernel.sharding, 3) for m in of_kernel)
    step = jax.jit(step, donate_argnums=0, out_shardings=(places, None))
    want, losses = alone
    with sharding.laid_out(mesh, rules):
        for at in range(3):
            batch = jax.device_put(unequal(at), sharding.batch_sharding(mesh))
            state, metrics = step(state, batch)
            np.testing.assert_allclose(metrics["loss"], losses[at], rtol=1e-5)
    assert all(
        isinstance(leaf.sharding, NamedSharding) for leaf in jax.tree.leaves(state)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        state.params,
        want.params,
    )


def test_state_starts_sharded_and_is_donated(devices):
    mesh = sharding.make_mesh((("data", -1),), devices)
    of, tx, step = parts(name="adamw")
    init = lambda key: tiny.init(of, key)  # noqa: E731
    abstract = train_step.abstract_state(init, tx, mesh, "fsdp", ema=True)
    with sharding.laid_out(mesh, "fsdp"):
        state = train_step.init_state(init, tx, abstract, seed=1)
    for leaf, wanted in zip(
        jax.tree.leaves(state), jax.tree.leaves(abstract), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (wanted.shape, wanted.dtype)
        assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)
    jax.tree.map(np.testing.assert_array_equal, state.ema, state.params)
    single = nn.meta.unbox(jax.jit(init)(jax.random.key(1)))
    jax.tree.map(np.testing.assert_array_equal, state.params, single)
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    lowered = jax.jit(step, donate_argnums=0, out_shardings=(places, None)).lower(
        abstract, tiny.batch(B, T)
    )
    donated = lowered.as_text().count("tf.aliasing_output")
    donated += lowered.as_text().count("jax.buffer_donor")
    assert donated == len(jax.tree.leaves(abstract))


class Log:
    """Stands for the writer, the console and the checkpoints, and keeps a diary."""

    keeps_best = False
    workdir = "."

    def __init__(self, keeps_best=False):
        self.records, self.saved, self.said, self.losses = [], [], [], {}
        self.waited = self.closed = 0
        self.keeps_best = keeps_best

    def write(self, record):
        self.records.append(record)

    def log(self, record):
        pass

    def progress(self, step):
        pass

    def message(self, text):
        self.said.append(text)

    def save(self, state, loop, loss):
        self.saved.append(int(state.step))
        self.losses[int(state.step)] = loss
        self.loop = LoopState.of(copy.deepcopy(loop.record()))

    def wait(self):
        self.waited += 1

    def close(self):
        self.closed += 1

    def steps(self):
        return [r["step"] for r in self.records]


def play(loss_at=lambda at: 1.0, validation_at=None, first=0, loop=None, log=None,
         before=None, **knobs):  # fmt: skip
    """Runs the loop on a script: the loss of each step, and of each validation."""
    log = log or Log()
    asked = []
    knobs = train_step.Knobs(
        **{"steps": 10, "tokens_per_step": 5, "log_every": 2} | knobs
    )

    def step(state, batch, bounds):
        at = int(state.step) + 1
        assert (bounds is None) == (knobs.spike == "off")
        assert batch == at - 1  # the batch of a step is that of its index
        asked.append(at)
        if before:
            before(at)
        metrics = {"loss": loss_at(at), "objective": loss_at(at), "grad_norm": 0.5}
        metrics = {k: jnp.float32(v) for k, v in metrics.items()}
        return state._replace(step=jnp.int32(at)), metrics

    def validate(params, batch):
        return {"loss": (jnp.float32(batch), jnp.float32(1))}

    state = State(jnp.int32(first), {}, None, {})
    current = lambda: asked[-1]  # noqa: E731
    loop = LoopState() if loop is None else loop
    program = train_loop.Program(
        step=step,
        validate=validate,
        batches=lambda at: iter(range(at, 10**6)),
        validation=lambda: [validation_at(current())] if validation_at else [],
        documents=lambda at: [f"document-{at}-{n}" for n in range(10)],
        learning_rate=lambda at: at / 100,
    )
    wall = Wall(".", silent=True)
    watch = Telemetry(knobs, loop, first, writer=log, console=log, wall=wall)
    made = train_loop.fit(
        program, state, loop, knobs=knobs, checkpoints=log, telemetry=watch
    )
    return (*made, log)


def test_metrics_are_those_of_their_step():
    state, _, log = play(loss_at=lambda at: at * 1.5)
    assert int(state.step) == 10
    assert log.steps() == [2, 4, 6, 8, 10]
    for record in log.records:
        at = record["step"]
        assert record["loss"] == at * 1.5
        assert record["tokens"] == 5 * at
        assert record["learning_rate"] == (at - 1) / 100
    assert log.saved == [10]  # always at the end


def test_the_last_step_is_logged_whatever_is_due():
    assert play(steps=7, log_every=5)[2].steps() == [5, 7]
    assert play(steps=7, log_every=0)[2].steps() == [7]


def test_hooks_run_each_at_its_step():
    _, _, log = play(
        validation_at=lambda at: 1.0 / at, validate_every=3, checkpoint_every=4
    )
    assert log.steps() == [2, 3, 4, 6, 8, 9, 10]
    validated = [r["step"] for r in log.records if "validation_loss" in r]
    assert validated == [3, 6, 9, 10]
    assert log.saved == [4, 8, 10]
    assert log.losses == {4: None, 8: None, 10: pytest.approx(0.1)}
    for record in log.records:
        if "validation_loss" in record:
            assert record["validation_loss"] == pytest.approx(1 / record["step"])


@pytest.mark.parametrize("cut", [3, 4, 6, 9, 10])
def test_hooks_run_once_across_a_resume(cut):
    knobs = {"validation_at": lambda at: 1 / at, "validate_every": 3}
    knobs |= {"checkpoint_every": cut}
    _, _, undisturbed = play(**knobs)
    # A process that is killed right after the checkpoint of step `cut`.
    first = Log()
    play(**knobs, log=first)
    loop = first.loop if cut == 10 else None
    kept = [r for r in first.records if r["step"] <= cut]
    _, _, second = play(**knobs, first=cut, loop=loop)
    steps = [r["step"] for r in kept] + second.steps()
    assert steps == undisturbed.steps()


def test_a_better_model_is_saved_at_once():
    losses = {2: 3.0, 4: 2.0, 6: 2.5, 8: 1.5, 10: 1.6}
    _, loop, log = play(
        validation_at=losses.get, validate_every=2, log=Log(keeps_best=True)
    )
    assert log.saved == [2, 4, 8, 10]
    assert (loop.best_validation_loss, loop.best_step) == (1.5, 8)
    assert loop.validation_loss == pytest.approx(1.6)


def test_stops_early():
    losses = {1: 3.0, 2: 2.0, 3: 2.1, 4: 2.2, 5: 1.9, 6: 2.0, 7: 2.0, 8: 1.95}
    state, loop, log = play(
        validation_at=losses.get, validate_every=1, patience=3, steps=100,
        overfit_gap=9.0,
    )  # fmt: skip
    assert int(state.step) == 8 and loop.stopped_early
    assert log.saved == [8] and log.steps() == list(range(1, 9))
    (event,) = loop.events
    assert event["step"] == 8 and event["event"] == "early stop"
    assert "below 1.9000 (step 5)" in event["message"]
    # Started again, it stays where it is.
    state, again, more = play(
        validation_at=losses.get, validate_every=1, patience=3, steps=100,
        first=8, loop=log.loop,
    )  # fmt: skip
    assert int(state.step) == 8 and not more.records and not more.saved
    assert len(again.events) == 1


def test_patience_counts_across_a_resume():
    losses = {2: 2.0, 4: 2.1, 6: 2.2, 8: 2.3, 10: 2.4}
    knobs = {"validation_at": losses.get, "validate_every": 2, "patience": 3}
    log = Log()
    play(**knobs, checkpoint_every=6, steps=6, log=log)
    state, loop, _ = play(**knobs, first=6, loop=log.loop)
    assert int(state.step) == 8 and loop.stopped_early


def test_warns_of_overfitting_once():
    losses = {2: 2.0, 4: 1.9, 6: 2.2, 8: 2.3, 10: 2.4}
    _, loop, log = play(
        loss_at=lambda at: 1.5, validation_at=losses.get, validate_every=2,
        overfit_gap=0.5,
    )  # fmt: skip
    (event,) = loop.events
    assert (event["step"], event["event"]) == (6, "overfitting")
    assert "2.200 is 0.700 above" in event["message"]
    assert len(log.said) == 1 and log.said[0].startswith("step 6: overfitting")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("at", [5, 6, 10])
def test_a_loss_that_is_not_finite_stops_the_run(at, bad, capsys):
    log = Log()
    with pytest.raises(Diverged) as caught:
        play(loss_at=lambda s: bad if s == at else 1.0, checkpoint_every=2, log=log)
    assert caught.value.code == 1
    message = capsys.readouterr().err
    good = 4 if at < 7 else 8
    assert f"step {at}: loss {bad}" in message
    assert f"document-{at - 1}-0" in message and "document-3-" not in message
    assert f"last good checkpoint: step {good};" in message
    assert log.saved == list(range(2, good + 1, 2))
    assert all(np.isfinite(r["loss"]) for r in log.records)
    assert max(log.steps()) == good


def test_the_last_good_checkpoint_is_known_after_a_resume(capsys):
    log = Log()
    play(steps=4, checkpoint_every=4, log=log)
    with pytest.raises(Diverged):
        play(loss_at=lambda s: np.nan, first=4, loop=log.loop)
    assert "last good checkpoint: step 4;" in capsys.readouterr().err


STOPS = [(signal.SIGTERM, Preempted, 75), (signal.SIGINT, Interrupted, 130)]


@pytest.mark.parametrize("number, kind, code", STOPS)
@pytest.mark.parametrize("at", [1, 5, 10])
def test_a_signal_saves_and_stops(number, kind, code, at, capsys):
    log = Log()

    def before(step):
        if step == at:
            os.kill(os.getpid(), number)

    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(kind) as caught:
        play(before=before, log=log)
    assert caught.value.code == code
    assert log.saved == [at]
    assert f"saved step {at}; run the same command again" in capsys.readouterr().err
    assert log.steps() == list(range(2, at + 1, 2))
    after = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    assert after == handlers


def test_a_signal_during_a_validation_is_saved_before_the_end():
    """It comes after the loop looked: the step must not end unsaved."""
    log = Log()

    class Late(Log):
        def write(self, record):
            super().write(record)
            if record["step"] == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    log = Late()
    with pytest.raises(Preempted):
        play(validation_at=lambda at: 1.0, validate_every=2, log=log)
    assert log.saved[-1] == 5


def test_a_second_interrupt_stops_at_once():
    def before(step):
        if step in (3, 4):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        play(before=before)


def test_garbage_is_collected_in_pauses_alone():
    """Those of validations and checkpoints, as a collection stops a step."""
    kept, enabled = {}, []

    class Node:
        pass

    def before(step):
        enabled.append(gc.isenabled())
        node = kept[step] = Node()
        node.itself = node
        kept[step] = weakref.ref(node)

    def left(at):
        found.append([step for step in kept if kept[step]() is not None])
        return 1.0

    found = []
    play(before=before, validation_at=left, validate_every=5)
    assert enabled == [False] * 10 and gc.isenabled()
    assert found == [[], []]


def test_a_long_validation_or_checkpoint_is_no_hang(tmp_path, monkeypatch):
    now, dogs, ended = [0.0], [], []

    def watchdog(workdir, **knobs):
        dogs.append(Watchdog(workdir, **knobs, clock=lambda: now[0], end=ended.append))
        return dogs[-1]

    def passes(seconds):
        now[0] += seconds
        assert not dogs[0].look()

    class Slow(Log):
        workdir = str(tmp_path)

        def save(self, state, loop, loss):
            super().save(state, loop, loss)
            passes(1e4)

    monkeypatch.setattr(telemetry, "Watchdog", watchdog)
    _, _, log = play(
        steps=30, log=Slow(), before=lambda step: passes(1.0), watchdog=10.0,
        validation_at=lambda at: passes(1e4) or 1.0, validate_every=8,
        checkpoint_every=12,
    )  # fmt: skip
    assert log.saved == [12, 24, 30] and not ended
    now[0] += 1e4
    assert dogs[0].look() and ended  # elsewhere it is


LENGTHS = [
    ({"steps": 7}, 7),
    ({"tokens": 1000}, 4),  # 256 a step
    ({"tokens": 1024}, 4),
    ({"tokens": 1025}, 5),
    ({"epochs": 1.0}, 13),  # 100 rows, 8 a step
    ({"epochs": 1.5}, 19),
    ({"epochs": 0.01}, 1),
]


def lengths(**given):
    knobs = {"steps": 0, "tokens": 0, "epochs": 0.0, "batch_size": 8, "seq_len": 32}
    return workload.length(ConfigDict(knobs | given), rows_per_epoch=100)


@pytest.mark.parametrize("given, steps", LENGTHS)
def test_length(given, steps):
    assert lengths(**given) == steps


@pytest.mark.parametrize(
    "given, shown",
    [
        ({}, "no length"),
        ({"steps": 3, "epochs": 1.0}, "train.steps=3, train.epochs=1.0"),
    ],
)
def test_length_must_be_one(given, shown):
    with pytest.raises(InputError, match="exactly one of") as caught:
        lengths(**given)
    assert shown in str(caught.value)

"""Optimizers against optax written out, numpy loops, and optax's own Muon."""

import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
import tiny

from llm import tree
from llm.errors import InputError
from llm.precision import FLOAT32, Policy
from llm.training import optim, train_step

STEPS = 3
RATE, MUON_RATE, DECAY = 0.01, 0.05, 0.1
CLOSE = {"rtol": 1e-5, "atol": 1e-7}


def constant(step):
    return jnp.asarray(1.0)


def axes_of(how="scan"):
    of = tiny.model(how=how)
    boxed = jax.eval_shape(lambda: tiny.init(of, jax.random.key(0)))
    return train_step.logical_axes(boxed)


@pytest.fixture(scope="module")
def params():
    return tiny.params(tiny.model())


@pytest.fixture(scope="module")
def gradients(params):
    """A tree of gradients for each step, scaled alike as early gradients are."""
    rng = np.random.default_rng(9)
    return [
        jax.tree.map(
            lambda p: (0.1 * rng.normal(size=p.shape)).astype(np.float32), params
        )
        for _ in range(STEPS)
    ]


def run(tx, params, gradients):
    """Parameters after every step."""

    @jax.jit
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state, seen = tx.init(params), []
    for gradient in gradients:
        params, state = step(params, state, gradient)
        seen.append(params)
    return seen


def ours(name, params, gradients, axes=None, **knobs):
    knobs = {"learning_rate": RATE, "muon_learning_rate": MUON_RATE} | knobs
    knobs = {"weight_decay": DECAY} | knobs
    return run(
        optim.optimizer(name, constant, axes or axes_of(), **knobs), params, gradients
    )


@pytest.fixture(scope="module")
def scanned(params, gradients):
    """The run of an optimizer, made once."""
    return functools.cache(lambda name: ours(name, params, gradients))


def assert_trees(got, want, **close):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **(close or CLOSE)), got, want
    )


def decays(params):
    """Written out: kernels and the embedding, not the scales of norms."""
    return tree.map_named(lambda n, _: not n.endswith("scale"), params)


REFERENCES = {
    "adamw": lambda m: optax.adamw(
        RATE, b1=0.9, b2=0.95, eps=1e-8, weight_decay=DECAY, mask=m
    ),
    "adam": lambda m: optax.chain(
        optax.add_decayed_weights(DECAY, m), optax.adam(RATE, b1=0.9, b2=0.95)
    ),
    "sgd": lambda m: optax.chain(
        optax.trace(0.95), optax.add_decayed_weights(DECAY, m), optax.scale(-RATE)
    ),
    "rmsprop": lambda m: optax.chain(
        optax.scale_by_rms(0.95, 1e-8),
        optax.add_decayed_weights(DECAY, m),
        optax.scale(-RATE),
    ),
    "lion": lambda m: optax.lion(RATE, b1=0.9, b2=0.95, weight_decay=DECAY, mask=m),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_equals_optax(params, gradients, scanned, name):
    want = run(REFERENCES[name](decays(params)), params, gradients)
    for step, one in enumerate(scanned(name)):
        assert_trees(one, want[step])


def test_sgd_and_adamw_equal_a_numpy_loop(params, gradients, scanned):
    name = "stack/layer/mlp/up/kernel"
    p = {kind: tree.named_leaves(params)[name].astype(np.float64) for kind in "sa"}
    held = first = second = 0.0
    runs = [scanned(kind) for kind in ("sgd", "adamw")]
    for t, gradient in enumerate(gradients, 1):
        g = tree.named_leaves(gradient)[name].astype(np.float64)
        held = 0.95 * held + g
        p["s"] = p["s"] - RATE * (held + DECAY * p["s"])
        first, second = 0.9 * first + 0.1 * g, 0.95 * second + 0.05 * g * g
        direction = first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.95**t)) + 1e-8)
        p["a"] = p["a"] - RATE * (direction + DECAY * p["a"])
        for kind, made in zip("sa", runs, strict=True):
            got = tree.named_leaves(made[t - 1])[name]
            np.testing.assert_allclose(got, p[kind], rtol=1e-5, atol=1e-6)


def matrices(leaf, layers=2):
    """A scanned kernel as the matrices of its layers, written out by shape."""
    shapes = {
        "query": (16, 32), "key": (16, 16), "value": (16, 16), "out": (32, 16),
        "gate": (16, 24), "up": (16, 24), "down": (24, 16),
    }  # fmt: skip
    (name,) = [n for n in shapes if f"/{n}/kernel" in leaf]
    return (layers, *shapes[name])


def test_first_step_of_muon_is_that_of_optax(params, gradients):
    """Later, optax corrects its momentum for its start, which the original does not."""
    (got,) = ours("muon", params, gradients[:1], weight_decay=0.0)
    adamw = optax.adam(RATE, b1=0.9, b2=0.95)
    (rest,) = run(adamw, params, gradients[:1])
    seen, single, moved = [], ({}, {}), {}
    for leaf, want in tree.named_leaves(params).items():
        new = np.asarray(tree.named_leaves(got)[leaf])
        if "stack" not in leaf or leaf.endswith("scale"):
            np.testing.assert_allclose(new, tree.named_leaves(rest)[leaf], **CLOSE)
            continue
        seen.append(leaf)
        shape = matrices(leaf)
        before = want.reshape(shape)
        g = tree.named_leaves(gradients[0])[leaf].reshape(shape)
        for layer in range(2):
            name = f"{leaf}/{layer}"
            single[0][name], single[1][name] = before[layer], g[layer]
            moved[name] = new.reshape(shape)[layer] - before[layer]
    theirs = optax.contrib.muon(MUON_RATE, beta=0.95, nesterov=True)
    (after,) = run(theirs, single[0], single[1:])
    for name, before in single[0].items():
        np.testing.assert_allclose(moved[name], after[name] - before, atol=2e-6)
        assert np.abs(moved[name]).max() > 1e-3
    assert len(seen) == 7


def newton_schulz(x):
    """The published iteration (kellerjordan.github.io/posts/muon), in float64."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def test_muon_equals_the_published_loop(params, gradients, scanned):
    runs = scanned("muon")
    for leaf in (
        "stack/layer/attention/out/kernel",
        "stack/layer/attention/query/kernel",
    ):
        shape = matrices(leaf)
        p = tree.named_leaves(params)[leaf].reshape(shape).astype(np.float64)
        held = np.zeros(shape)
        for gradient, made in zip(gradients, runs, strict=True):
            g = tree.named_leaves(gradient)[leaf].reshape(shape)
            for layer in range(2):
                held[layer] = 0.95 * held[layer] + 0.05 * g[layer]  # lerp
                step = newton_schulz(0.05 * g[layer] + 0.95 * held[layer])
                step *= math.sqrt(max(1, shape[2] / shape[1]))
                p[layer] -= MUON_RATE * (step + DECAY * p[layer])
            got = np.asarray(tree.named_leaves(made)[leaf]).reshape(shape)
            np.testing.assert_allclose(got, p, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", optim.NAMES)
def test_scanning_changes_no_update(params, gradients, scanned, name):
    def looped(whole):
        return whole | {"stack": tiny.unstack(whole["stack"], 2)}

    looped_run = ours(
        name, looped(params), [looped(g) for g in gradients], axes_of("loop")
    )
    assert_trees(looped(scanned(name)[-1]), looped_run[-1], rtol=1e-5, atol=1e-6)


def test_adafactor_of_large_matrices_is_by_layer():
    """From 128 on, optax factors the second moment: a layer at a time here."""
    rng = np.random.default_rng(3)
    kernel = rng.normal(size=(2, 130, 2, 140)).astype(np.float32)
    scales = np.array([1.0, 100.0], np.float32).reshape(2, 1, 1, 1)
    gradient = {"kernel": rng.normal(size=kernel.shape).astype(np.float32) * scales}
    axes = {"kernel": ("layers", "embed", "heads", "head_dim")}
    got = ours("adafactor", {"kernel": kernel}, [gradient] * 2, axes, weight_decay=0.0)
    reference = optax.chain(
        optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), optax.scale(-RATE)
    )
    for layer in range(2):
        one = {"kernel": gradient["kernel"][layer]}
        want = run(reference, {"kernel": kernel[layer]}, [one] * 2)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a["kernel"][layer], b["kernel"], **CLOSE)


@pytest.mark.parametrize("how", ["scan", "loop"])
@pytest.mark.parametrize("name", optim.NAMES)
def test_every_leaf_has_one_group(name, how):
    axes = axes_of(how)
    held = optim.groups(name, axes)
    assert held.keys() == axes.keys() and set(held.values()) <= {name, "adamw"}
    for leaf, group in held.items():
        is_matrix = "/layer" in leaf and leaf.endswith("kernel")
        assert group == ("adamw" if name == "muon" and not is_matrix else name), leaf


@pytest.mark.parametrize("name", ["adamw", "muon", "adafactor"])
@pytest.mark.parametrize("freeze", [r"embed/.*|.*/query/kernel", r"stack/.*"])
def test_frozen_leaves_stay(params, gradients, name, freeze):
    last = ours(name, params, gradients[:1], freeze=freeze)[-1]
    for leaf, new in tree.named_leaves(last).items():
        same = np.array_equal(new, tree.named_leaves(params)[leaf])
        assert same == bool(re.fullmatch(freeze, leaf)), leaf


def test_decay_takes_only_what_matches(params):
    none = [jax.tree.map(np.zeros_like, params)]
    (after,) = ours("sgd", params, none, decay=r"head/kernel")
    for leaf, new in tree.named_leaves(after).items():
        before = tree.named_leaves(params)[leaf]
        shrunk = before * (1 - RATE * DECAY) if leaf == "head/kernel" else before
        np.testing.assert_allclose(new, shrunk, rtol=1e-6)


def test_the_factor_scales_every_group(params, gradients, scanned):
    half = optim.optimizer(
        "muon",
        lambda step: jnp.where(step == 0, 0.5, 0.0),
        axes_of(),
        learning_rate=RATE,
        muon_learning_rate=MUON_RATE,
        weight_decay=DECAY,
    )
    first, second, _ = run(half, params, gradients)
    jax.tree.map(
        lambda p, a, b: np.testing.assert_allclose(2 * (a - p), b - p, atol=1e-6),
        params, first, scanned("muon")[0],
    )  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("shape", [(3, 16, 40), (40, 16), (2, 64, 96)])
def test_orthogonal(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for policy in (FLOAT32, Policy("bfloat16", "cpu")):
        got = jax.jit(lambda x, p=policy: optim.orthogonal(x, p))(x)
        assert got.shape == shape and got.dtype == jnp.float32
        values = np.linalg.svd(np.asarray(got, np.float64), compute_uv=False)
        assert values.min() > 0.6 and values.max() < 1.3
        # The directions stay: U and V of x diagonalise the result.
        u, _, vt = np.linalg.svd(x.astype(np.float64), full_matrices=False)
        inner = np.swapaxes(u, -1, -2) @ np.asarray(got) @ np.swapaxes(vt, -1, -2)
        off = inner * (1 - np.eye(inner.shape[-1]))
        assert np.abs(off).max() < (1e-4 if policy is FLOAT32 else 0.05)


@pytest.mark.parametrize("name", optim.NAMES)
def test_zero_gradients_stay_finite(name):
    axes = {"stack/kernel": ("layers", "embed", "mlp")}
    held = {"stack": {"kernel": np.ones((2, 3, 4), np.float32)}}
    last = ours(name, held, [jax.tree.map(np.zeros_like, held)] * 2, axes)[-1]
    assert np.isfinite(last["stack"]["kernel"]).all()


N = 100  # steps; warm-up 10, decay 20, final 0.1
TABLE = {
    # step: first, end of warm-up, one after, middle of the rest, last
    "constant": {0: 0.1, 9: 1.0, 10: 1.0, 54: 1.0, 99: 1.0},
    # The final factor is that of step 100, which is none of the run.
    "linear": {0: 0.1, 9: 1.0, 10: 1 - 0.9 / 91, 54: 1 - 0.9 * 45 / 91,
               99: 1 - 0.9 * 90 / 91, 100: 0.1},
    "cosine": {0: 0.1, 4: 0.5, 9: 1.0, 54: 0.557766, 99: 0.100268, 100: 0.1},
    "rsqrt": {0: 0.1, 9: 1.0, 39: 0.5, 89: 1 / 3, 99: 10**-0.5},
    "wsd": {0: 0.1, 9: 1.0, 54: 1.0, 79: 1.0, 89: 1 - 0.9 * 10 / 21,
            99: 1 - 0.9 * 20 / 21, 100: 0.1},
    "range": {0: 1e-4, 33: 10 ** (-8 / 3), 66: 10 ** (-4 / 3), 99: 1.0},
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_schedule_table(name):
    factor = optim.schedule(name, N, warmup=0.1, decay=0.2, final=0.1)
    for step, want in TABLE[name].items():
        got = float(factor(jnp.int32(step)))
        np.testing.assert_allclose(got, want, rtol=1e-5, err_msg=str(step))


@pytest.mark.parametrize("name", optim.SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
def test_schedules_rise_then_fall_and_stay_in_range(name, steps):
    factor = optim.schedule(name, steps, warmup=0.05, decay=0.2, final=0.0)
    values = np.array([float(factor(np.int32(s))) for s in range(0, steps, 7)])
    assert ((values >= 0) & (values <= 1)).all()
    assert (np.diff(np.sign(np.diff(values))[np.diff(values) != 0]) <= 0).all()
    assert float(factor(np.int32(0))) > 0 or steps < 3


@pytest.mark.parametrize("name", ["linear", "cosine", "wsd"])
@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_the_last_update_learns(name, steps):
    factor = optim.schedule(name, steps, warmup=0.05, decay=0.2, final=0.0)
    assert float(factor(np.int32(steps - 1))) > 0


def test_no_warmup_starts_at_the_peak():
    assert float(optim.schedule("constant", 100, warmup=0.0)(0)) == 1.0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: optim.schedule("cosin", 10), "one of constant, cosine, linear"),
        (
            lambda: optim.optimizer("adm", constant, {}, learning_rate=1.0),
            "optimizer.name 'adm'; want one of adafactor, adam, adamw",
        ),
    ],
)
def test_unknown_names(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_axes_name_every_leaf(params):
    for how in ("scan", "loop"):
        of = tiny.model(how=how)
        boxed = jax.eval_shape(lambda of=of: tiny.init(of, jax.random.key(0)))
        leaves = tree.named_leaves(nn.meta.unbox(boxed))
        axes = axes_of(how)
        assert axes.keys() == leaves.keys()
        assert all(len(axes[n]) == len(leaves[n].shape) for n in leaves)

"""Experts against loops over tokens, their losses against the formulas."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from llm import sharding, tree
from llm.errors import InputError
from llm.losses import Head
from llm.models import moe as models
from llm.nn import experts as moe
from llm.nn.contract import Output, with_head
from llm.objectives import causal_lm
from llm.precision import FLOAT32, Policy
from llm.training import train_step

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
B, T, D, F = 3, 9, 6, 10
# A row with two documents, one with padding at its end, one with padding before.
SEGMENTS = np.array([[1] * 4 + [2] * 5, [1] * 6 + [0] * 3, [0] * 7 + [1] * 2])
# Blocks of rows, and XLA's ragged product.
POLICIES = [FLOAT32, Policy("float32", "gpu")]


def layer(experts=4, top_k=2, policy=FLOAT32, **knobs):
    """(layer, parameters, inputs)."""
    of = moe.MoE(experts, top_k, F, policy, **knobs)
    rng = np.random.default_rng(experts)
    x = rng.normal(size=(B, T, D)).astype(np.float32)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) * 0.7,
        nn.meta.unbox(boxed(of)),
    )
    return of, params, x


def boxed(of):
    """Shapes of the parameters, with the names of their axes."""
    x = np.zeros((1, 2, D), np.float32)
    start = lambda key: of.init(key, x, np.ones((1, 2), int), False)  # noqa: E731
    return jax.eval_shape(start, jax.random.key(0))["params"]


def run(of, params, x, segments=SEGMENTS, train=False):
    made = jax.jit(of.apply, static_argnums=3)({"params": params}, x, segments, train)
    return jax.tree.map(np.asarray, made)


def choices(of, params, x):
    """[(expert, share), ...] of every token, the likeliest first; [] for padding."""
    router = params["router"]["kernel"].astype(np.float64)
    found = {}
    for b, t in np.ndindex(B, T):
        logits = x[b, t] @ router
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = np.argsort(-shares)[: of.top_k] if SEGMENTS[b, t] else []
        total = sum(shares[best]) if of.renormalise else 1.0
        found[b, t] = [(e, shares[e] / total) for e in best]
    return found


def one(params, e, x):
    """What an expert makes of a token."""
    gate, up, down = (params[n]["kernel"][e] for n in ("gate", "up", "down"))
    hidden = x @ gate
    return (hidden / (1 + np.exp(-hidden)) * (x @ up)) @ down


def looped(of, params, x, limit=math.inf):
    """(output, assignments dropped): a token and an expert at a time, in order."""
    out, dropped = np.zeros(x.shape), 0
    held = np.zeros((B, of.experts), int)
    for (b, t), chosen in choices(of, params, x).items():
        for e, share in chosen:
            if held[b, e] < limit:
                out[b, t] += share * one(params, e, x[b, t])
            else:
                dropped += 1
            held[b, e] += 1
    return out, dropped


@pytest.mark.parametrize("policy", POLICIES, ids=["blocks", "ragged"])
@pytest.mark.parametrize(
    "experts, top_k, renormalise",
    [(4, 2, False), (3, 3, True), pytest.param(5, 1, False, marks=pytest.mark.long),
     pytest.param(4, 2, True, marks=pytest.mark.long),
     pytest.param(16, 2, True, marks=pytest.mark.long)],
)  # fmt: skip
def test_experts_equal_the_loop(policy, experts, top_k, renormalise):
    of, params, x = layer(experts, top_k, policy, renormalise=renormalise)
    got, _ = run(of, params, x)
    want, _ = looped(of, params, x)
    np.testing.assert_allclose(got, want, **CLOSE)
    assert (got[SEGMENTS == 0] == 0).all()
    # In training, too, where no capacity is set.
    np.testing.assert_array_equal(run(of, params, x, train=True)[0], got)


@pytest.mark.parametrize("capacity", [0.4, 1.0, 1.25, 9.0])
def test_what_exceeds_the_capacity_passes_through(capacity):
    of, params, x = layer(capacity=capacity)
    limit = math.ceil(capacity * T * of.top_k / of.experts)
    want, dropped = looped(of, params, x, limit)
    assert (dropped > 0) == (capacity < 1.25)
    got, figures = run(of, params, x, train=True)
    np.testing.assert_allclose(got, want, **CLOSE)
    assert figures["expert_dropped"] * of.top_k == pytest.approx(dropped)
    # Only in training.
    got, figures = run(of, params, x)
    np.testing.assert_allclose(got, looped(of, params, x)[0], **CLOSE)
    assert "expert_dropped" not in figures


def test_capacity_written_out():
    """Six tokens, two experts, room for two: the first that come are served."""
    of = moe.MoE(2, 1, F, FLOAT32, capacity=0.5)
    wants = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    segments = np.array([[1, 1, 0, 1, 1, 0, 1, 1]])
    x = np.ones((1, 8, 2), np.float32) * np.eye(2, dtype=np.float32)[wants]
    _, params, _ = layer(2, 1)
    params = jax.tree.map(lambda leaf: np.ones_like(leaf[..., :2, :]), params)
    params["down"]["kernel"] = np.ones((2, F, 2), np.float32)
    params["router"]["kernel"] = 20 * np.eye(2, dtype=np.float32)
    got, figures = run(of, params, x, segments, train=True)
    # C = 0.5 * 8 * 1 / 2 = 2. Padding (2 and 5) is not served and takes no room; of
    # the fifth token, expert 0 is full; of the last one, expert 1.
    served = (np.abs(got[0]).sum(-1) > 0).tolist()
    assert served == [True, True, False, True, False, False, True, False]
    assert figures["expert_dropped"] == 2


@pytest.mark.parametrize("train", [True, False])
def test_tokens_depend_on_what_is_before_them_in_their_row(train):
    of, params, x = layer(capacity=0.8)
    whole = run(of, params, x, np.ones((B, T), int), train)[0]
    later, others = x.copy(), x.copy()
    later[:, 5:] += 1
    others[1:] += 1
    got = run(of, params, later, np.ones((B, T), int), train)[0]
    np.testing.assert_allclose(got[:, :5], whole[:, :5], **CLOSE)
    got = run(of, params, others, np.ones((B, T), int), train)[0]
    np.testing.assert_allclose(got[0], whole[0], **CLOSE)


@pytest.mark.parametrize("top_k", [1, 2])
def test_losses_equal_the_formulas(top_k):
    E = 4
    of, params, x = layer(E, top_k, balance=0.3, router_z=0.2)
    _, figures = run(of, params, x)
    loads, means, z, tokens = np.zeros(E), np.zeros(E), 0.0, 0
    for (b, t), chosen in choices(of, params, x).items():
        if not chosen:
            continue
        logits = x[b, t] @ params["router"]["kernel"]
        tokens += 1
        means += np.exp(logits) / np.exp(logits).sum()
        z += np.log(np.exp(logits).sum()) ** 2
        for e, _ in chosen:
            loads[e] += 1
    assert tokens == (SEGMENTS > 0).sum()
    balance = E * ((loads / (tokens * top_k)) * (means / tokens)).sum()
    assert figures["balance_loss"] == pytest.approx(0.3 * balance * tokens, rel=1e-5)
    assert figures["router_z_loss"] == pytest.approx(0.2 * z, rel=1e-5)
    busiest = loads.max() / (tokens * top_k)
    assert figures["expert_load_max"] == pytest.approx(busiest * tokens, rel=1e-5)


def test_even_loads_have_a_balance_of_one():
    of, params, x = layer(4, 2, balance=1.0, router_z=1.0)
    params["router"]["kernel"][:] = 0
    _, figures = run(of, params, x)
    tokens = (SEGMENTS > 0).sum()
    assert figures["balance_loss"] == pytest.approx(tokens)
    assert figures["router_z_loss"] == pytest.approx(tokens * math.log(4) ** 2)


@pytest.mark.parametrize("train", [True, False])
def test_padding_changes_nothing(train):
    of, params, x = layer(capacity=0.8)
    got, figures = run(of, params, x, train=train)
    changed = np.where(SEGMENTS[..., None] > 0, x, 3.0)
    again, same = run(of, params, changed, train=train)
    np.testing.assert_array_equal(again, got)
    jax.tree.map(np.testing.assert_array_equal, same, figures)
    nothing, zeros = run(of, params, x, np.zeros((B, T), int), train)
    assert (nothing == 0).all() and not any(map(np.any, zeros.values()))


def naive(of, params, x, served_BTE):
    """Every expert of every token, weighted; for jax to differentiate."""
    logits = x @ params["router"]["kernel"]
    share = jax.nn.softmax(logits, axis=-1)
    best = jax.lax.top_k(share, of.top_k)[0][..., -1:]
    real = jnp.asarray(SEGMENTS > 0, jnp.float32)[..., None]
    chosen = (share >= best) * real
    total = (share * chosen).sum(-1, keepdims=True) if of.renormalise else 1.0
    share = share * chosen / jnp.where(total == 0, 1.0, total)
    gate, up, down = (params[n]["kernel"] for n in ("gate", "up", "down"))
    hidden = jax.nn.silu(jnp.einsum("btd,edf->btef", x, gate))
    hidden = hidden * jnp.einsum("btd,edf->btef", x, up)
    made = jnp.einsum("btef,efd->bted", hidden, down)
    y = (made * (share * served_BTE)[..., None]).sum(2)
    tokens = real.sum()
    loads = jax.lax.stop_gradient(chosen.sum((0, 1))) / (tokens * of.top_k)
    means = (jax.nn.softmax(logits, axis=-1) * real).sum((0, 1)) / tokens
    balance = tokens * of.experts * (loads * means).sum()
    z = (jnp.square(jax.nn.logsumexp(logits, axis=-1)) * real[..., 0]).sum()
    return y, of.balance * balance + of.router_z * z


@pytest.mark.parametrize("policy", POLICIES, ids=["blocks", "ragged"])
@pytest.mark.parametrize(
    "capacity, renormalise", [(0.0, True), (0.0, False), (0.8, True)]
)
def test_gradients_equal_those_of_the_naive_form(policy, capacity, renormalise):
    knobs = {"renormalise": renormalise, "capacity": capacity}
    of, params, x = layer(policy=policy, balance=0.5, router_z=0.4, **knobs)
    served = np.ones((B, T, of.experts), np.float32)
    if capacity:
        limit = math.ceil(capacity * T * of.top_k / of.experts)
        held = np.zeros((B, of.experts), int)
        for (b, t), chosen in choices(of, params, x).items():
            for e, _ in chosen:
                served[b, t, e] = held[b, e] < limit
                held[b, e] += 1
        assert (served == 0).any()
    weight = np.random.default_rng(1).normal(size=(B, T, D)).astype(np.float32)

    def ours(params, x):
        y, sums = of.apply({"params": params}, x, SEGMENTS, True)
        return (y * weight).sum() + sums["balance_loss"] + sums["router_z_loss"]

    def theirs(params, x):
        y, losses = naive(of, params, x, served)
        return (y * weight).sum() + losses

    got = jax.jit(jax.grad(ours, (0, 1)))(params, x)
    want = jax.jit(jax.grad(theirs, (0, 1)))(params, x)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("capacity", [0.0, 0.8])
def test_bfloat16_is_near_float32(capacity):
    """Products of bfloat16 operands, forward and backward, where a CPU has them."""

    def gradient(policy):
        of, params, x = layer(policy=policy, capacity=capacity)

        def total(params):
            return (of.apply({"params": params}, x, SEGMENTS, True)[0] ** 2).sum()

        return jax.jit(jax.value_and_grad(total))(params)

    got, want = gradient(Policy("bfloat16", "cpu")), gradient(FLOAT32)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.05, atol=0.02 * np.abs(b).max())


def test_ranks_and_loads():
    expert_A = jnp.array([2, 0, 2, 3, 2, 0, 3])  # 3 is past the last of three
    assert moe.loads(expert_A, 3).tolist() == [2, 0, 3]
    assert moe.ranks(expert_A, 3)[:3].tolist() == [0, 0, 1]
    assert moe.ranks(expert_A, 3)[4:6].tolist() == [2, 1]


def test_rows_go_to_their_slots_and_back():
    x_AD = np.arange(1.0, 9.0, dtype=np.float32).reshape(4, 2)
    slot_A = jnp.array([3, 5, 0, 2])  # of five; the second is nowhere
    placed = moe.placed(x_AD, slot_A, 5)
    assert placed[:, 0].tolist() == [5, 0, 7, 1, 0]
    assert moe.back(placed, slot_A)[:, 0].tolist() == [1, 0, 5, 7]


def tiny_model(**knobs):
    knobs = {"vocab_size": 32, "residual_scale": 1.0, "width": 16, **knobs}
    return models.make(**(models.TINY | knobs))


def rows(count):
    rng = np.random.default_rng(2)
    texts = [[rng.integers(1, 32, 5).tolist(), rng.integers(1, 32, 3).tolist()]]
    return tiny.packed(texts * (count - 1) + [[[7, 8]]], 10)


def test_the_model_reports_the_sum_over_its_layers():
    of = tiny_model(how="loop", balance=0.5)
    params, inputs = tiny.params(of), rows(3)

    @jax.jit
    def both(params):
        noted = []

        def watch(function, given, keywords, context):
            made = function(*given, **keywords)
            if isinstance(context.module, moe.MoE):
                noted.append(made[1])
            return made

        with nn.intercept_methods(watch):
            return of.apply({"params": params}, inputs).sums, noted

    sums, noted = both(params)
    assert len(noted) == 2
    scalars = {"balance_loss", "router_z_loss", "expert_load_max"}
    assert set(sums) == scalars | {"expert_load"}
    load_LE, tokens = sums.pop("expert_load")
    shares = np.stack([figures["expert_load"] for figures in noted]) / tokens
    np.testing.assert_allclose(load_LE / tokens, shares, rtol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-6)
    for name, (value, weight) in sums.items():
        assert weight == 18  # tokens that are not padding
        each = [float(figures[name]) for figures in noted]
        want = sum(each) / (1 if name.endswith("_loss") else 2)
        assert value == pytest.approx(want, rel=1e-5)
    assert 1 / 4 <= sums["expert_load_max"][0] / 18 <= 1 / 2


def test_the_objective_adds_the_losses_of_a_model():
    batch = tiny.batch(2, 8, empty=0.3) | {"index": np.arange(2)}
    hidden_BTD = np.random.default_rng(0).normal(size=(2, 8, 4)).astype(np.float32)

    def apply(sums):
        def applied(params, inputs, train, rngs):
            del params, inputs, train, rngs
            return Output(hidden_BTD, None, sums), Head(hidden_BTD, np.ones((4, 64)))

        return applied

    objective = causal_lm.make()

    def of(sums):
        return objective.loss(apply(sums), {}, batch, policy=FLOAT32)

    plain, weight, _ = of({})
    sums = {"balance_loss": (6.0, 3.0), "load": (5.0, 2.0)}
    total, same, metrics = of(sums)
    assert same == weight and 0 < weight < 16
    assert total == pytest.approx(float(plain + 6.0 / 3.0 * weight), rel=1e-6)
    assert metrics["balance_loss"] == sums["balance_loss"]
    assert metrics["load"] == sums["load"]


def updated(batch, accumulate=1, axes=(("data", 1),)):
    """(update by plain gradient descent, metrics) of a model with strong own losses."""
    devices = jax.devices()[: math.prod(size for _, size in axes)]
    of = tiny_model(vocab_size=tiny.V, balance=2.0, router_z=0.5)
    init, tx = functools.partial(tiny.init, of), optax.sgd(1.0)
    mesh = sharding.make_mesh(axes, devices)
    abstract = train_step.abstract_state(init, tx, mesh, "fsdp")
    knobs = train_step.Knobs(
        steps=1, tokens_per_step=1, accumulate=accumulate, clip_norm=0.0
    )
    step = train_step.build_step(
        with_head(of), causal_lm.make(), tx, knobs, FLOAT32
    )  # fmt: skip
    with sharding.laid_out(mesh, "fsdp"):
        state = train_step.init_state(init, tx, abstract, 0)
        batch = sharding.placed(batch, mesh)
        after, metrics = jax.jit(step)(state, batch)
    change = jax.tree.map(lambda a, b: np.asarray(a - b), after.params, state.params)
    return tree.named_leaves(change), jax.device_get(metrics)


@pytest.fixture(scope="module")
def uneven():
    """Rows of few tokens each, and of which most count few targets."""
    batch = tiny.batch(8, 12)
    batch["tokens"] = batch["tokens"] % np.array([[2], [40]] * 4)
    batch["weights"][1:] *= np.random.default_rng(0).random((7, 12)) < 0.2
    return batch, *updated(batch)


@pytest.mark.parametrize(
    "accumulate, axes",
    [(2, (("data", 1),)),
     pytest.param(1, (("stage", 2),), marks=pytest.mark.long),
     pytest.param(8, (("data", 1),), marks=pytest.mark.long),
     pytest.param(2, (("stage", 2), ("data", 2)), marks=pytest.mark.long)],
)  # fmt: skip
def test_losses_of_a_batch_in_parts_are_those_of_the_whole(
    devices, uneven, accumulate, axes
):
    batch, want, want_metrics = uneven
    got, metrics = updated(batch, accumulate, axes)
    for name, change in want.items():
        scale = np.abs(change).max()
        np.testing.assert_allclose(
            got[name], change, rtol=1e-5, atol=1e-5 * scale, err_msg=name
        )
    assert metrics.keys() == want_metrics.keys()
    for name, value in want_metrics.items():
        assert metrics[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("capacity", [0.0, 0.8])
def test_experts_on_a_mesh_equal_those_on_one_device(devices, capacity):
    of, params, x = layer(capacity=capacity)
    given = (params, np.concatenate([x, x + 1, x[:2]]), np.tile(SEGMENTS, (3, 1))[:8])

    def total(params, x, segments):
        y, sums = of.apply({"params": params}, x, segments, True)
        return (y * jnp.sin(x)).sum() + sums["balance_loss"]

    want = jax.jit(jax.value_and_grad(total))(*given)
    mesh = sharding.make_mesh((("data", 2), ("expert", 4)), devices)
    placed = jax.device_put(params, sharding.shardings_of(boxed(of), mesh, "fsdp"))
    kernel = placed["gate"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (1, D // 2, F)
    spread = jax.device_put(given[1:], sharding.batch_sharding(mesh))
    with sharding.laid_out(mesh, "fsdp"):
        # Another function, so that it is traced here.
        got = jax.jit(jax.value_and_grad(lambda *a: total(*a)))(placed, *spread)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize(
    "knobs, message",
    [
        ({"top_k": 5}, "top_k 5 of 4 experts; want 1 to 4"),
        ({"top_k": 0}, "model.top_k 0; want 1 or more"),
        ({"capacity": -1.0}, "model.capacity -1.0; want 0 or more"),
    ],
)
def test_knobs_that_do_not_fit(knobs, message):
    with pytest.raises(InputError, match=message):
        tiny_model(**knobs)

"""Width transfer: what layers put out, and the best learning rate, whatever the width.

Maximal-update parametrisation promises both (arXiv:2203.03466, figures 1 and 5): the
changes that training makes to activations neither grow nor vanish with the width, so
that the learning rate which is best for a narrow model is best for a wide one.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llm import config, models, registry
from llm.errors import InputError
from llm.nn.contract import plain_inputs
from llm.precision import FLOAT32
from llm.training import optim, train_step

pytestmark = pytest.mark.long

V, BASE = 64, 64


def built(width, name="llama", **knobs):
    """(model, its spec, params, logical axes) of two layers."""
    heads = {"heads": width // 16, "kv_heads": width // 16, "head_dim": 16}
    spec = registry.spec(
        "models", name, layers=2, width=width, mlp=2 * width, **heads, **knobs
    )
    objective = registry.spec("objectives", "causal_lm")
    model, _, init = models.build(spec, objective, FLOAT32, V)
    boxed = init(jax.random.key(0))
    return model, spec, nn.meta.unbox(boxed), train_step.logical_axes(boxed)


def transform(name, base, spec, axes, rate, factor=lambda step: 1.0):
    knobs = config.base("train").optimizer.to_dict()
    knobs |= {"name": name, "base_width": base, "weight_decay": 0.0}
    knobs |= {"learning_rate": rate, "muon_learning_rate": rate}
    return optim.configured(knobs, factor, axes, model=spec)


def outputs(model, params, tokens_BT):
    """The residual stream behind each layer, and logits."""

    def both(m):
        output = m(plain_inputs(tokens_BT), capture=("residual",))
        return output.seen["residual"], m.head(output.hidden_BTD).logits(FLOAT32)

    return model.apply({"params": params}, method=both)


def loss_of(model, params, tokens_BT):
    logits_BTV = outputs(model, params, tokens_BT[:, :-1])[1]
    return optax.softmax_cross_entropy_with_integer_labels(
        logits_BTV, tokens_BT[:, 1:]
    ).mean()


def growth(name, base, rate, of="llama"):
    """Exponents of the width in the change of the residual stream and of logits."""
    tokens_BT = np.random.default_rng(0).integers(0, V, (8, 33))
    widths, changes = (64, 128, 256), []
    for width in widths:
        model, spec, params, axes = built(width, of)
        tx = transform(name, base, spec, axes, rate)

        @jax.jit
        def trained(params, model=model, tx=tx):
            def step(carry, _):
                params, state = carry
                gradient = jax.grad(lambda p: loss_of(model, p, tokens_BT))(params)
                updates, state = tx.update(gradient, state, params)
                return (optax.apply_updates(params, updates), state), None

            return jax.lax.scan(step, (params, tx.init(params)), length=5)[0][0]

        before = outputs(model, params, tokens_BT)
        after = outputs(model, trained(params), tokens_BT)
        changes.append([float(jnp.sqrt(jnp.mean((a - b) ** 2)))
                        for a, b in zip(after, before, strict=True)])  # fmt: skip
    return np.polyfit(np.log(widths), np.log(changes), 1)[0]


@pytest.mark.parametrize(
    "name, rate, of",
    [
        ("adamw", 1e-2, "llama"),
        pytest.param("muon", 1e-2, "llama", marks=pytest.mark.slow),
        pytest.param("lion", 1e-3, "llama", marks=pytest.mark.slow),
        pytest.param("adamw", 1e-2, "olmo2", marks=pytest.mark.slow),
    ],
)
def test_what_layers_put_out_does_not_grow(name, rate, of):
    stream, logits = growth(name, BASE, rate, of)
    print(f"{of} {name}: stream {stream:.2f}, logits {logits:.2f}")
    assert abs(stream) < 0.25 and abs(logits) < 0.25


def test_without_it_they_grow():
    stream, _ = growth("adamw", 0, 1e-2)
    assert stream > 0.8


def walks(steps, batch=8, length=32):
    """Token rows of a random Markov chain, whose entropy is low."""
    rng = np.random.default_rng(0)
    cumulative = rng.dirichlet(np.full(V, 0.05), size=V).cumsum(-1)
    rows = np.zeros((steps * batch, length), np.int32)
    rows[:, 0] = rng.integers(0, V, len(rows))
    for t in range(length - 1):
        chance = rng.random((len(rows), 1))
        rows[:, t + 1] = (cumulative[rows[:, t]] < chance).sum(-1).clip(0, V - 1)
    return rows.reshape(steps, batch, length)


def best_rate(width, base, steps, exponents):
    """log2 of the learning rate with the least final loss, also between points."""
    model, spec, params, axes = built(width)
    schedule = optim.schedule("linear", steps, warmup=0.1, final=0.0)

    def final(rate):
        tx = transform("adamw", base, spec, axes, rate, schedule)

        def step(carry, tokens_BT):
            params, state = carry
            value, gradient = jax.value_and_grad(
                lambda p: loss_of(model, p, tokens_BT)
            )(params)
            updates, state = tx.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), value

        _, values = jax.lax.scan(step, (params, tx.init(params)), walks(steps))
        return values[-8:].mean()

    values = np.asarray(jax.jit(jax.vmap(final))(2.0 ** np.asarray(exponents)))
    at = int(np.nanargmin(values))
    assert 0 < at < len(values) - 1, "the grid does not hold the best rate"
    left, middle, right = values[at - 1 : at + 2]
    return exponents[at] + (left - right) / (left - 2 * middle + right) / 2


def test_the_best_rate_stays():
    """Within a factor of two from 32 to 128 wide, and without it falls by more."""
    grid = range(-8, -2)
    narrow = best_rate(32, 32, 40, grid)
    assert abs(best_rate(128, 32, 40, grid) - narrow) < 1
    assert best_rate(128, 0, 40, range(-10, -4)) < narrow - 1


@pytest.mark.slow
def test_the_best_rate_stays_over_a_factor_of_eight():
    grid = range(-9, -2)
    found = [best_rate(width, 64, 80, grid) for width in (64, 128, 256, 512)]
    print("with:", found)
    assert max(found) - min(found) < 1
    without = [best_rate(width, 0, 80, range(-12, -3)) for width in (64, 512)]
    print("without:", without)
    assert without[0] - without[1] > 2


def test_rates_by_leaf():
    _, _, _, axes = built(64)
    found = optim.rates("adamw", axes, width=64, base_width=16)
    slow = {name for name, factor in found.items() if factor == 0.25}
    assert slow == {name for name in axes if name.endswith("kernel")}
    assert {found[name] for name in axes if name not in slow} == {1.0}
    muon = optim.rates("muon", axes, width=64, base_width=16)
    assert {name for name, factor in muon.items() if factor != 1} == {"head/kernel"}


def test_weight_decay_does_not_depend_on_the_width():
    """With no gradient a step is the decay alone, the same on every kernel."""
    _, spec, params, axes = built(64)
    knobs = config.base("train").optimizer.to_dict() | {
        "base_width": 16,
        "weight_decay": 0.5,
    }
    tx = optim.configured(knobs, lambda step: 1.0, axes, model=spec)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    kernel = ("stack", "layer", "mlp", "up", "kernel")
    value, update = params, updates
    for part in kernel:
        value, update = value[part], update[part]
    np.testing.assert_allclose(update, -0.5 * knobs["learning_rate"] * value, rtol=1e-5)


def test_at_the_base_width_nothing_changes():
    _, spec, params, axes = built(64)
    gradient = jax.tree.map(jnp.ones_like, params)
    made = []
    for base in (0, 64):
        tx = transform("adamw", base, spec, axes, 0.1)
        made.append(tx.update(gradient, tx.init(params), params)[0])
    jax.tree.map(np.testing.assert_array_equal, *made)


@pytest.mark.parametrize(
    "name, knobs, optimizer, shown",
    [
        ("llama", {}, "sgd", "the optimizer 'sgd'"),
        ("llama", {"tied": True}, "adamw", "tied or added weights"),
        ("moe", {}, "adamw", "the model 'moe'"),
    ],
)
def test_what_it_is_not_for(name, knobs, optimizer, shown):
    _, spec, _, axes = built(64, **knobs)
    with pytest.raises(InputError, match=shown):
        transform(optimizer, 32, spec | {"name": name}, axes, 0.1)

"""The place where numbers stop being finite, planted in models of each kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rows
import tiny

from llm import registry, tree
from llm.precision import FLOAT32
from llm.training import find_nan
from llm.training.train_step import Frozen, Knobs

V, B, T = 64, 4, 12
OTHER_OBJECTIVES = ("masked_lm", "seq2seq", "classify")


def keep(params, frozen):
    return params


def planted(params, name, layer, value):
    """Parameters with one that is huge."""
    named = dict(tree.named_leaves(params))
    named[name] = named[name].at[layer].set(value)
    return jax.tree.unflatten(jax.tree.structure(params), list(named.values()))


def batch(rng, accumulate=1):
    tokens = rng.integers(1, V, (B * accumulate, T), dtype=np.int32)
    return {
        "tokens": tokens, "targets": np.roll(tokens, -1, 1),
        "positions": np.tile(np.arange(T, dtype=np.int32), (len(tokens), 1)),
        "segments": np.ones_like(tokens), "weights": np.ones_like(tokens),
    }  # fmt: skip


def located(of, params, made=None, at=3, accumulate=1, **change):
    wanted = registry.build("objectives", {"name": "causal_lm"}, vocab_size=V)
    wanted = wanted._replace(**change)
    knobs = Knobs(steps=9, tokens_per_step=1, accumulate=accumulate)
    locate = find_nan.build_locate(of, wanted, FLOAT32, knobs, keep)
    rng = np.random.default_rng(0)
    return locate(params, made or batch(rng, accumulate), at)


@pytest.mark.parametrize("how", ["scan", "loop"])
@pytest.mark.parametrize("layer", [2, pytest.param(0, marks=pytest.mark.long)])
def test_the_first_module_and_layer(how, layer):
    of = tiny.model(layers=3, how="scan")
    params = jax.tree.map(jnp.asarray, tiny.params(of))
    name = next(n for n in tree.named_leaves(params) if n.endswith("gate/kernel"))
    params = planted(params, name, layer, 3e38)
    want = f"not finite first: {name.removesuffix('/kernel')}, layer {layer}"
    if how == "loop":
        of = tiny.model(layers=3, how="loop")
        stack, _, rest = want.partition("/layer/")
        want = f"{stack}/layer_{layer}/{rest.partition(',')[0]}"
        params["stack"] = tiny.unstack(params["stack"], 3)
    assert located(of, params) == want


def test_all_is_well():
    of = tiny.model()
    assert located(of, tiny.params(of)) == ""


def test_micro_batches_are_looked_at_in_turn():
    """The second of two holds a token whose vector's square is too large."""
    of = tiny.model(layers=3)
    params = jax.tree.map(jnp.asarray, tiny.params(of))
    name = next(n for n in tree.named_leaves(params) if "embedding" in n)
    made = batch(np.random.default_rng(0), 2)
    made["tokens"] %= V - 1
    params = planted(params, name, V - 1, 3e38)
    assert located(of, params, made, accumulate=2) == ""
    made["tokens"][-1, 3] = V - 1
    # The norm of a layer makes the huge small again; its gradient is what fails.
    assert "not so the gradients of " in located(of, params, made, accumulate=2)


def test_parameters_loss_and_gradients():
    of = tiny.model()
    params = jax.tree.map(jnp.asarray, tiny.params(of))
    name = next(n for n in tree.named_leaves(params) if n.endswith("gate/kernel"))
    bad = planted(params, name, 1, jnp.nan)
    assert located(of, bad) == f"not finite: the parameters {name}"
    plain = registry.build("objectives", {"name": "causal_lm"}, vocab_size=V).loss

    def no_loss(*args, **kwargs):
        total, *rest = plain(*args, **kwargs)
        return total * jnp.inf, *rest

    def no_gradient(apply, params, *args, **kwargs):
        total, *rest = plain(apply, params, *args, **kwargs)
        leaf = tree.named_leaves(params)[name]
        return total + jnp.sqrt(jnp.sum(leaf) * 0.0), *rest

    assert "the loss, of finite hidden states" in located(of, params, loss=no_loss)
    said = located(of, params, loss=no_gradient)
    assert said == f"the loss is finite, not so the gradients of {name}"


@pytest.mark.parametrize(
    "name",
    ["dpo", *(pytest.param(n, marks=pytest.mark.long) for n in OTHER_OBJECTIVES)],
)
def test_every_kind_of_objective(name):
    """A kernel of the last layer that is too large is found by its module."""
    of = rows.build(name)
    model, params = rows.small_model(of)
    params = jax.tree.map(jnp.asarray, params)
    made = rows.batch_of(of, 4)
    locate = find_nan.build_locate(
        model, of, FLOAT32, Knobs(steps=9, tokens_per_step=1), keep
    )
    frozen = Frozen(reference=params) if of.reference else Frozen()
    assert locate(params, made, 1, frozen=frozen) == ""
    names = [n for n in tree.named_leaves(params) if n.endswith("up/kernel")]
    last = tree.named_leaves(params)[names[-1]].shape[0] - 1
    bad = planted(params, names[-1], last, 3e38)
    want = f"not finite first: {names[-1].removesuffix('/kernel')}, layer {last}"
    assert locate(bad, made, 1, frozen=frozen) == want

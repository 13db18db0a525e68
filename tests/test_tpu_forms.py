"""Forms that a TPU's program has, against those of a CPU, on the same numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm.nn import mlp, positions, stack, weights
from llm.precision import Policy

TPU, CPU = Policy("float32", "tpu"), Policy("float32", "cpu")
KNOBS = {"mlp": 24, "residual_scale": 1.0}


def rng(seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("gain", [1.0, 1.3])
def test_rope_by_a_product(gain):
    x = rng(0).normal(size=(2, 16, 3, 8)).astype(np.float32)
    at = rng(1).integers(0, 500, (2, 16)).astype(np.int32)
    turns = positions.rope_frequencies(8, 10_000.0)
    want = positions.rope(x, at, turns, gain, CPU)
    np.testing.assert_allclose(
        positions.rope(x, at, turns, gain, TPU), want, atol=1e-5
    )  # fmt: skip


@pytest.mark.parametrize(
    "spec, x, kernel",
    [
        ("BTD,DNH->BTNH", (2, 6, 8), (8, 3, 4)),
        ("BTNH,NHD->BTD", (2, 6, 3, 4), (3, 4, 8)),
    ],
)
def test_products_without_reshapes(spec, x, kernel):
    x = rng(0).normal(size=x).astype(np.float32)
    kernel = rng(1).normal(size=kernel).astype(np.float32)

    def made(policy):
        y, back = jax.vjp(lambda *a: weights.einsum(spec, *a, policy), x, kernel)
        return y, *back(jnp.cos(y))

    for got, want in zip(made(TPU), made(CPU), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_gated_layer_with_its_hidden_layer_made_once():
    x = rng(0).normal(size=(2, 6, 16)).astype(np.float32)
    layer = functools.partial(mlp.Gated, **KNOBS)
    params = layer(policy=CPU).init(jax.random.key(0), x)

    def made(policy):
        run = lambda p, x: layer(policy=policy).apply(p, x)  # noqa: E731
        y, back = jax.vjp(run, params, x)
        return jax.tree.leaves((y, back(jnp.cos(y))))

    for got, want in zip(made(TPU), made(CPU), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_rematerialisation_by_tensor():
    """What is kept is what was named: a sine is taken again where its name is not."""
    from jax.ad_checkpoint import checkpoint_name

    def f(x):
        return jnp.cos(checkpoint_name(jnp.sin(x), "gate")).sum()

    def sines(remat):
        step = jax.checkpoint(f, policy=stack.remat_policy(remat), prevent_cse=False)
        return str(jax.make_jaxpr(jax.grad(step))(1.0)).count("= sin ")

    # One in the backward pass is the derivative of the cosine.
    assert sines("context,gate") + 1 == sines("context,up") == sines("full")
    stack.check_stack(1, "scan", "context,gate@host")
    with pytest.raises(stack.InputError, match="gate,some"):
        stack.check_stack(1, "scan", "gate,some")

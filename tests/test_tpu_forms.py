"""Forms that a TPU's program has, against those of a CPU, on the same numbers."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from llm import sharding
from llm.nn import mlp, positions, stack, weights
from llm.nn.contract import Inputs
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


MESHES = [
    (),
    (("fsdp", 4), ("tensor", 2)),
    (("data", 2), ("context", 2), ("tensor", 2)),
]


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("rows", [4, 3])  # what no mesh divides is left as it is
def test_a_gated_layer_with_its_hidden_layer_made_once(devices, mesh, rows):
    x = rng(0).normal(size=(rows, 6, 16)).astype(np.float32)
    layer = functools.partial(mlp.Gated, **KNOBS)
    params = nn.meta.unbox(layer(policy=CPU).init(jax.random.key(0), x))

    def made(policy):
        def both(params, x):
            y, back = jax.vjp(layer(policy=policy).apply, params, x)
            return jax.tree.leaves((y, back(jnp.cos(y))))

        return jax.jit(both)(params, x)

    want = made(CPU)
    on = sharding.make_mesh(mesh, devices) if mesh else None
    with sharding.laid_out(on, "fsdp") if mesh else contextlib.nullcontext():
        got = made(TPU)
    for mine, its in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-4)


@pytest.mark.parametrize("rows, seen", [(4, [(1, 6, 8)]), (3, [])])
def test_what_is_done_on_each_device(devices, rows, seen):
    """Its part is all that it sees; what is not divided comes back as it was."""
    parts = []

    def twice(x):
        parts.append(x.shape)
        return (2 * x,)

    x = jnp.ones((rows, 6, 16))
    mesh = sharding.make_mesh((("fsdp", 2), ("tensor", 2), ("data", 2)), devices)
    with sharding.laid_out(mesh, "tensor"):
        (y,) = jax.jit(
            lambda x: sharding.on_each_device(twice, ("batch", "length", "mlp"), x)
        )(x)
    assert parts == seen
    np.testing.assert_array_equal(y, 2 * x if seen else x)


def test_what_names_keep_is_kept_where_xla_makes_attention():
    """Queries, keys and the context have their names beside the fused kernel, too."""
    params, zeros = tiny.params(tiny.model()), jnp.zeros((2, 8), jnp.int32)
    inputs = Inputs(zeros, zeros, zeros + 1, zeros[:, 0])

    def products(remat):
        def loss(params):
            model = tiny.model(remat=remat)
            return model.apply({"params": params}, inputs).hidden_BTD.sum()

        return str(jax.make_jaxpr(jax.grad(loss))(params)).count("dot_general")

    kept = "attention_q,attention_k,attention_v"
    assert products("full") > products(kept) > products(f"{kept},context")


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
    stack.check_remat("context,gate@host")
    with pytest.raises(stack.InputError, match="gate,some"):
        stack.check_remat("gate,some")

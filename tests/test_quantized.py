"""Weights in few bits: rounding against a plain loop, products against dense ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm import precision
from llm.nn import quantized
from llm.nn.weights import einsum
from llm.precision import FLOAT32, matmul


def by_hand(column, bits, ends):
    """Values and scale of one group, in numpy."""
    most = {"int8": 127, "int4": 8}[bits]
    top = most if bits == "int8" else most - 1
    best = None
    for end in ends:
        scale = np.float32(np.abs(column).max() * np.float32(end) / np.float32(most))
        values = np.clip(np.round(column / scale), -most, top)
        if bits == "int4":  # least squares
            scale = (values * column).sum() / (values * values).sum()
        error = ((values * scale - column) ** 2).sum()
        if best is None or error < best[0] * (1 - 1e-6):
            best = error, values, scale
    return best[1], best[2]


@pytest.mark.parametrize("bits", ["int8", "int4"])
@pytest.mark.parametrize("group", [0, 4])
def test_rounding_equals_a_plain_loop(bits, group):
    kernel = np.random.default_rng(0).normal(size=(3, 8, 2, 3)).astype(np.float32)
    made = quantized.quantize_kernel(jnp.asarray(kernel), 2, bits=bits, group=group)
    size = group or 24
    assert made.values.dtype == jnp.dtype(bits) and made.shape == kernel.shape
    assert made.scales.shape == (24 // size, 2, 3)
    dense = np.asarray(made.dense()).reshape(24, 6)
    rows = kernel.reshape(24, 6)
    ends = quantized._ENDS[bits]
    for g in range(24 // size):
        part = slice(g * size, (g + 1) * size)
        for n in range(6):
            values, scale = by_hand(rows[part, n], bits, ends)
            np.testing.assert_allclose(dense[part, n], values * scale, rtol=1e-5)
    table = quantized.quantize_table(jnp.asarray(rows), bits=bits)
    for row in range(24):
        values, scale = by_hand(rows[row], bits, ends)
        found = np.asarray(table.take(jnp.array([row])))[0]
        np.testing.assert_allclose(found, values * scale, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("group", [0, 8])
@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_products_are_those_of_the_dense_matrix(bits, group, rows, monkeypatch):
    """Of few rows in float32; of many, whole numbers are exact in bfloat16."""
    monkeypatch.setattr(precision, "_CHUNK", 100)  # so that there are chunks
    rng = np.random.default_rng(1)
    a = jnp.asarray(rng.normal(size=(rows, 16)).astype(np.float32))
    if rows > 1:
        a = a.astype(jnp.bfloat16).astype(jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(16, 70)).astype(np.float32))
    made = quantized.quantize_kernel(kernel, 1, bits=bits, group=group)
    table = quantized.quantize_table(kernel.T, bits=bits, group=group).T
    close = {"rtol": 1e-4, "atol": 1e-4}
    if rows > 1 and group:  # the scaled weights are rounded
        close = {"rtol": 2e-2, "atol": 5e-2}
    for one in (made, table):
        want = np.asarray(a) @ np.asarray(one.dense())
        np.testing.assert_allclose(matmul(a, one, FLOAT32), want, **close)
        cut = precision.first_columns(one, 33)
        np.testing.assert_allclose(matmul(a, cut, FLOAT32), want[:, :33], **close)


@pytest.mark.parametrize(
    ("spec", "shape", "inputs"),
    [("BTD,DNH->BTNH", (6, 2, 4), 1), ("BTNH,NHD->BTD", (2, 4, 6), 2)],
)
def test_the_einsum_of_models(spec, shape, inputs):
    rng = np.random.default_rng(2)
    kernel = jnp.asarray(rng.normal(size=shape).astype(np.float32))
    x = jnp.asarray(rng.normal(size=(2, 3, *shape[:inputs])).astype(np.float32))
    made = quantized.quantize_kernel(kernel, inputs, bits="int8")
    want = jnp.einsum(spec, x, made.dense(), precision="highest")
    np.testing.assert_allclose(einsum(spec, x, made, FLOAT32), want, atol=1e-4)


def test_a_stack_is_its_layers():
    kernel = jnp.asarray(
        np.random.default_rng(3).normal(size=(3, 4, 2, 5)), jnp.float32
    )
    one = lambda k: quantized.quantize_kernel(k, 2, bits="int4", group=2)  # noqa: E731
    stacked = jax.vmap(one)(kernel)
    for layer in range(3):
        apart = jax.tree.map(lambda x, i=layer: x[i], stacked)
        alone = one(kernel[layer]).dense()
        np.testing.assert_allclose(apart.dense(), alone, rtol=1e-6)
        np.testing.assert_allclose(stacked.dense()[layer], alone, rtol=1e-6)


def test_zero_stays_zero():
    made = quantized.quantize_kernel(jnp.zeros((4, 3)), 1, bits="int8")
    assert not np.asarray(made.dense()).any()

"""Products in eight bits against the same rounding written out in numpy."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import tiny

from llm import registry
from llm.nn import low_precision
from llm.nn.contract import with_head
from llm.nn.weights import einsum
from llm.precision import Policy

INT8, FP8 = Policy(products="int8"), Policy(products="fp8")
SPECS = {
    "BTD,DNH->BTNH": ((2, 6, 32), (32, 3, 4)),
    "BTNH,NHD->BTD": ((2, 6, 3, 8), (3, 8, 5)),
}


def given(spec):
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=size).astype(np.float32) for size in SPECS[spec])
    x[0, 0] *= 50  # a row of outliers
    x[1, 1] = 0
    return x, kernel


def rounded(x, axes, kind):
    """`x` after a round trip through eight bits."""
    if kind == "int8":
        largest = np.abs(x).max(axis=axes, keepdims=True)
        scale = np.where(largest > 0, largest / np.float32(127), np.float32(1))
        return np.clip(np.rint(x / scale), -127, 127) * scale
    dtype = ml_dtypes.float8_e5m2 if kind == "gradient" else ml_dtypes.float8_e4m3fn
    most = float(ml_dtypes.finfo(dtype).max)
    scale = np.float32(np.abs(x).max() / most)
    return np.clip(x / scale, -most, most).astype(dtype).astype(np.float32) * scale


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("policy", [INT8, FP8], ids=["int8", "fp8"])
def test_product_and_gradients_written_out(spec, policy):
    x, kernel = given(spec)
    y, back = jax.vjp(lambda *a: einsum(spec, *a, policy), x, kernel)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    dx, dkernel = back(dy)

    kind, given_back = policy.products, policy.products
    if kind == "fp8":
        given_back = "gradient"
    x_term, kernel_term, y_term = spec.replace("->", ",").split(",")
    axes = lambda term, other: tuple(i for i, a in enumerate(term) if a in other)  # noqa: E731
    shared = set(x_term) & set(kernel_term)
    made, rows = set(y_term) - set(x_term), set(x_term) - shared
    want = np.einsum(
        spec,
        rounded(x, axes(x_term, shared), kind),
        rounded(kernel, axes(kernel_term, shared), kind),
    )
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)
    want = np.einsum(
        f"{y_term},{kernel_term}->{x_term}",
        rounded(dy, axes(y_term, made), given_back),
        rounded(kernel, axes(kernel_term, made), kind),
    )
    np.testing.assert_allclose(dx, want, rtol=1e-4, atol=1e-4)
    want = np.einsum(
        f"{x_term},{y_term}->{kernel_term}",
        rounded(x, axes(x_term, rows), kind),
        rounded(dy, axes(y_term, rows), given_back),
    )
    np.testing.assert_allclose(dkernel, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("policy", [INT8, FP8], ids=["int8", "fp8"])
def test_the_error_is_that_of_eight_bits(policy):
    rng = np.random.default_rng(2)
    x, kernel = rng.normal(size=(64, 256)), rng.normal(size=(256, 64))
    x, kernel = x.astype(np.float32), kernel.astype(np.float32)
    got, exact = einsum("TD,DF->TF", x, kernel, policy), x @ kernel
    error = np.sqrt(np.mean((got - exact) ** 2) / np.mean(exact**2))
    # A step of int8 is 1/127 of a row's largest value, about 3 deviations, and its
    # error is uniform; e4m3 has steps of 1/8 between two powers of two.
    least, most = {"int8": (0.005, 0.015), "fp8": (0.02, 0.05)}[policy.products]
    assert least < error < most


def test_int8_scales_are_those_of_the_axes_that_stay():
    x = jnp.asarray([[1.0, -2.0], [100.0, 50.0], [0.0, 0.0]])
    values, scale = low_precision.int8(x, (1,))
    assert values.dtype == jnp.int8
    np.testing.assert_array_equal(values, [[64, -127], [127, 64], [0, 0]])
    np.testing.assert_allclose(scale[:, 0], [2 / 127, 100 / 127, 1], rtol=1e-6)


def losses(products, steps=40):
    """Of a tiny model that learns to count in fours, from the same start."""
    policy = Policy(products=products)
    apply, params = with_head(tiny.model(policy=policy)), tiny.params(tiny.model())
    objective = registry.build("objectives", {"name": "causal_lm"})
    rng, tx = np.random.default_rng(0), optax.adam(3e-3)

    def loss(params, batch):
        total, weight, _ = objective.loss(apply, params, batch, policy=policy)
        return total / weight

    @jax.jit
    def step(params, state, batch):
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state, found = tx.init(params), []
    for _ in range(steps):
        batch = tiny.batch(8, 17) | {"index": np.arange(8)}
        row = (rng.integers(0, tiny.V, (8, 1)) + 4 * np.arange(18)) % tiny.V
        batch["tokens"], batch["targets"] = row[:, :-1], row[:, 1:]
        params, state, value = step(params, state, batch)
        found.append(float(value))
    return np.asarray(found)


@pytest.fixture(scope="module")
def exact():
    return losses("dtype")


@pytest.mark.long
@pytest.mark.parametrize("products", ["int8", "fp8"])
def test_training_keeps_up_with_float32(exact, products):
    """The mean of the last ten losses is within 3 % of that of exact products."""
    found = losses(products)
    assert exact[-10:].mean() < 0.7 * exact[0]  # it does learn
    assert not np.array_equal(found, exact)
    assert found[-10:].mean() == pytest.approx(exact[-10:].mean(), rel=0.03)


def test_logits_keep_the_dtype():
    of = tiny.model(policy=INT8)
    params, batch = tiny.params(of), tiny.batch(2, 12) | {"index": np.arange(2)}
    objective = registry.build("objectives", {"name": "causal_lm"})
    loss = lambda p: objective.loss(with_head(of), p, batch, policy=INT8)[0]  # noqa: E731
    text = str(jax.make_jaxpr(loss)(params))
    products = [line for line in text.splitlines() if "dot_general" in line]
    vocabulary = [x for x in products if f",{tiny.V}]" in x.partition("=")[0]]
    assert any("i32[" in x for x in products)
    assert vocabulary and all("f32[" in x.partition("=")[0] for x in vocabulary)

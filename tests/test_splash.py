"""The fused kernel, interpreted on a CPU, against the products in the open."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm.nn import splash
from llm.nn.attention import attention, choice, kernel
from llm.nn.context import Context, Reach
from llm.precision import Policy

B, T, N, K, H = 2, 256, 4, 2, 64


def given(seed=0):
    rng = np.random.default_rng(seed)
    heads = (N, K, K)
    q, k, v = (
        rng.normal(size=(B, T, n, H)).astype(np.float32) * H**-0.25 for n in heads
    )
    segments = np.repeat([[1] * 100 + [2] * 156, [1] * 200 + [0] * 56], 1, axis=0)
    positions = np.concatenate([np.arange(100), np.arange(156)])
    positions = np.stack([positions, np.arange(T)])
    return q, k, v, positions.astype(np.int32), segments.astype(np.int32)


def equals_the_products(kernel, causal, window):
    """Values and gradients of `kernel(q, k, v, reach)`, against those of XLA."""
    q, k, v, positions, segments = given()
    reach = Reach(positions, segments, positions, segments)
    context = Context((k,), (v,), reach, ordered=causal)
    weight = np.random.default_rng(1).normal(size=q.shape).astype(np.float32)

    def plain(q, k, v):
        own = context._replace(keys=(k,), values=(v,))
        o = attention(q, own, causal=causal, window=window, scale=1.0, policy=Policy())
        return jnp.sum(o * weight), o

    def fused(q, k, v):
        o = kernel(q, k, v, reach)
        return jnp.sum(o * weight), o

    want, o = jax.grad(plain, (0, 1, 2), has_aux=True)(q, k, v)
    got, own = jax.grad(fused, (0, 1, 2), has_aux=True)(q, k, v)
    np.testing.assert_allclose(own, o, atol=2e-5)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, atol=2e-4)


@pytest.mark.parametrize(
    "causal, window",
    [(True, 70), (False, 0), pytest.param(True, 0, marks=pytest.mark.long)],
)
def test_equals_the_products(causal, window):
    def fused(q, k, v, reach):
        return splash.splash_attention(
            q, k, v, reach.segments_BT, causal=causal, window=window, interpret=True
        )

    equals_the_products(fused, causal, window)


def test_where_it_runs_and_what_is_said():
    tpu, cpu = Policy("bfloat16", "tpu", 256), Policy("bfloat16", "cpu")
    assert choice(tpu, 2048, 128) == "splash"
    assert choice(tpu, 2048, 128, window=512) == "splash"
    assert choice(cpu, 2048, 128) == "xla"
    assert choice(tpu, 2000, 128) == "xla"  # not whole tiles
    assert choice(tpu, 2048, 128, past=True) == "xla"
    assert choice(tpu, 2048, 128, window=jnp.int32(512)) == "xla"
    assert kernel(tpu, 2048, 128) == "splash (Pallas)"
    assert "splash does not take rows of 2000" in kernel(tpu, 2000, 128)
    assert "splash does not take windows" in kernel(tpu, 2048, 128, (512, 0))


def test_blocks_divide_the_row():
    for T, most, want in ((2048, 1024, 1024), (1536, 1024, 768), (128, 512, 128)):
        assert splash._dividing(T, most) == want

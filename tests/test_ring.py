"""Ring attention against attention in one piece: results, gradients, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm import sharding
from llm.nn import ring
from llm.nn.attention import attention
from llm.nn.context import Context, Reach
from llm.precision import FLOAT32

B, T, N, K, H = 2, 16, 4, 2, 8


def arrays(length=T, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(B, length, heads, H) for heads in (N, K, K, N)]
    return [jnp.asarray(rng.normal(size=s).astype(np.float32)) for s in shapes]


def reach(length=T, prefix=False):
    """Two documents of unequal lengths and padding; the first words are a prefix."""
    cuts = (length // 3, length - 2), (length // 2 + 1, length)
    segments, positions = np.zeros((2, B, length), np.int32)
    for row, (middle, end) in enumerate(cuts):
        segments[row, :middle], segments[row, middle:end] = 1, 2
        positions[row, :middle] = np.arange(middle)
        positions[row, middle:end] = np.arange(end - middle)
    seen = jnp.asarray(positions < 3) if prefix else None
    return Reach(*map(jnp.asarray, (positions, segments, positions, segments)), seen)


def both(q, k, v, weight, given, causal, window):
    """Output, and gradients of a weighted sum of it."""

    def total(q, k, v):
        context = Context((k,), (v,), given)
        made = attention(q, context, causal=causal, window=window, policy=FLOAT32)
        return jnp.sum(made * weight), made

    gradients, made = jax.grad(total, (0, 1, 2), has_aux=True)(q, k, v)
    return made, *gradients


@pytest.mark.parametrize(
    "axes",
    [
        (("context", 8),),
        pytest.param((("data", 2), ("context", 4)), marks=pytest.mark.long),
        (("context", 2), ("data", 2), ("tensor", 2)),
    ],
)
@pytest.mark.parametrize(
    "causal, window, prefix",
    [(True, None, False), (True, 5, False), (False, 3, False), (True, None, True)],
)
def test_equals_attention_in_one_piece(
    devices, axes, causal, window, prefix, monkeypatch
):
    monkeypatch.setattr(ring, "_PIECE", 2)  # of the 2 to 8 queries on a device
    given, told = arrays(), reach(prefix=prefix)
    form = functools.partial(both, causal=causal, window=window)
    want = jax.jit(form)(*given, told)
    with sharding.laid_out(sharding.make_mesh(axes, devices), "fsdp"):
        program = jax.jit(lambda *a: form(*a)).lower(*given, told).compile()
        got = program(*given, told)
    assert "collective-permute" in program.as_text()
    for name, a, b in zip(("out", *"qkv"), got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5, err_msg=name)


def test_memory_falls_with_the_ring(devices):
    """Of a device, with gradients: 8 times fewer queries against 8 times fewer keys."""
    given, told = arrays(1024), reach(1024)

    def temporaries(ways):
        mesh = sharding.make_mesh((("context", ways),), devices[:ways])
        with sharding.laid_out(mesh, "fsdp"):
            cut = jax.NamedSharding(mesh, jax.P(None, "context"))
            placed = jax.device_put((*given, told), cut)
            form = jax.jit(lambda *a: both(*a, True, None))
            return form.lower(*placed).compile().memory_analysis().temp_size_in_bytes

    two, eight = temporaries(2), temporaries(8)
    assert eight < two / 4


def test_rows_that_the_ring_does_not_divide_stay_whole(devices):
    mesh = sharding.make_mesh((("context", 8),), devices)
    for length, around in ((16, True), (12, False)):
        _, k, v, _ = arrays(length)
        with sharding.laid_out(mesh, "fsdp"):
            assert ring.goes_around(Context((k,), (v,), reach(length))) == around
    assert not ring.goes_around(Context((k,), (v,), reach(12)))

"""Attention against a numpy loop, its gradient against that of a naive form."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm.nn import attention as pieces
from llm.nn.attention import attention
from llm.nn.context import Context, Reach
from llm.precision import FLOAT32, Policy

B, T, N, K, H = 2, 9, 4, 2, 6
# Two documents and padding; one document; segments that begin in the middle.
SEGMENTS = np.array([[1, 1, 1, 1, 2, 2, 2, 0, 0], [1, 1, 2, 3, 3, 3, 3, 3, 3]])
POSITIONS = np.array([[0, 1, 2, 3, 0, 1, 2, 0, 0], [4, 5, 0, 0, 1, 2, 3, 4, 5]])
# Causal, window, heads of keys.
CASES = [(True, 0, 2), (True, 2, 1), (False, 2, 4), (False, 0, 2)]


def arrays(kv_heads=K, seed=0):
    rng = np.random.default_rng(seed)
    heads = (N, kv_heads, kv_heads, N)
    return [rng.normal(size=(B, T, n, H)).astype(np.float32) for n in heads]


def may_see(b, t, s, causal, window):
    if SEGMENTS[b, t] != SEGMENTS[b, s]:
        return False
    ahead = POSITIONS[b, t] - POSITIONS[b, s]
    return not (causal and ahead < 0) and not (window and abs(ahead) >= window)


def looped(q, k, v, causal, window):
    """One query, one head, one key at a time."""
    out = np.zeros(q.shape)
    for b, t, n in itertools.product(range(B), range(T), range(N)):
        head = n // (N // k.shape[2])
        keys = [s for s in range(T) if may_see(b, t, s, causal, window)]
        scores = [float(q[b, t, n] @ k[b, s, head]) / math.sqrt(H) for s in keys]
        shares = np.exp(np.array(scores) - max(scores))
        shares /= shares.sum()
        out[b, t, n] = sum(p * v[b, s, head] for p, s in zip(shares, keys, strict=True))
    return out


def naive(q, k, v, causal, window):
    """The textbook form, for jax to differentiate."""
    groups = N // k.shape[2]
    k, v = (jnp.repeat(x, groups, axis=2) for x in (k, v))
    scores = jnp.einsum("btnh,bsnh->bnts", q, k, precision="highest") / math.sqrt(H)
    allowed = np.array(
        [
            [[may_see(b, t, s, causal, window) for s in range(T)] for t in range(T)]
            for b in range(B)
        ]
    )
    scores = jnp.where(allowed[:, None], scores, -jnp.inf)
    shares = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("bnts,bsnh->btnh", shares, v, precision="highest")


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def ours(q, k, v, causal=True, window=0, policy=FLOAT32):
    reach = Reach(*map(jnp.asarray, (POSITIONS, SEGMENTS, POSITIONS, SEGMENTS)))
    return attention(
        q, Context((k,), (v,), reach), causal=causal, window=window, policy=policy
    )


@pytest.mark.parametrize("causal, window, kv_heads", CASES)
def test_equals_a_loop(causal, window, kv_heads):
    q, k, v, _ = arrays(kv_heads)
    got = ours(q, k, v, causal, window)
    assert got.shape == (B, T, N, H) and got.dtype == jnp.float32
    want = looped(q, k, v, causal, window)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal, window, kv_heads", CASES)
def test_gradient_equals_autodiff_of_the_naive_form(causal, window, kv_heads):
    *given, weight = arrays(kv_heads, seed=1)

    def gradient(form):
        return jax.jit(
            jax.grad(lambda *a: jnp.sum(form(*a, causal, window) * weight), (0, 1, 2))
        )(*given)

    for name, a, b in zip("qkv", gradient(ours), gradient(naive), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=name)


def test_bfloat16_is_near():
    """Scores and shares are rounded to 8 bits before each product."""
    q, k, v, _ = arrays(seed=2)
    got = ours(q, k, v, policy=Policy("bfloat16", "cpu"))
    np.testing.assert_allclose(got, looped(q, k, v, True, 0), atol=0.03)


def test_padding_and_extreme_scores_stay_finite():
    q, k, v, weight = arrays(seed=3)

    def total(q, k, v):
        return jnp.sum(ours(q * 1e4, k, v) * weight)

    value, gradients = jax.jit(jax.value_and_grad(total, (0, 1, 2)))(q, k, v)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


def test_nothing_flows_across_segments_or_back_in_time():
    q, k, v, _ = arrays(seed=4)
    sums = jax.jit(jax.jacrev(lambda v: ours(q, k, v).sum((2, 3))))(v)
    seen = np.abs(sums).sum((4, 5)) > 0
    want = np.zeros((B, T, B, T), bool)
    for b, t, s in itertools.product(range(B), range(T), range(T)):
        want[b, t, b, s] = may_see(b, t, s, True, 0)
    np.testing.assert_array_equal(seen, want)


def test_fewer_queries_than_keys():
    """A piece of queries over all keys equals those rows of the whole."""
    q, k, v, _ = arrays(seed=5)
    reach = Reach(POSITIONS[:, 4:6], SEGMENTS[:, 4:6], POSITIONS, SEGMENTS)
    reach = jax.tree.map(jnp.asarray, reach)
    got = attention(q[:, 4:6], Context((k,), (v,), reach), policy=FLOAT32)
    np.testing.assert_allclose(got, ours(q, k, v)[:, 4:6], rtol=1e-5, atol=1e-6)


def test_rows_cut_in_pieces_equal_the_naive_form():
    """A row long enough to be cut: outputs and gradients, and keys ahead left out."""
    length = 2 * pieces._PIECE
    rng = np.random.default_rng(4)
    q, k, v, weight = (
        rng.normal(size=(1, length, heads, H)).astype(np.float32)
        for heads in (N, K, K, N)
    )
    # A document ends within a piece, another goes over its edge; then padding.
    ends = (length // 2 - 40, length - 9, length)
    segments, positions = np.zeros((2, 1, length), np.int32)
    first = 0
    for number, end in enumerate(ends, start=1):
        segments[0, first:end] = number % 3
        positions[0, first:end] = np.arange(end - first)
        first = end
    reach = Reach(*map(jnp.asarray, (positions, segments, positions, segments)))
    allowed = np.asarray(reach.mask_BTS())

    def total(form):
        return jax.jit(
            jax.value_and_grad(lambda *x: jnp.sum(form(*x) * weight), argnums=(0, 1, 2))
        )(q, k, v)

    def plain(q, k, v):
        k, v = (jnp.repeat(x, N // K, axis=2) for x in (k, v))
        scores = jnp.einsum("btnh,bsnh->bnts", q, k, precision="highest")
        scores = jnp.where(allowed[:, None], scores / math.sqrt(H), -jnp.inf)
        shares = jax.nn.softmax(scores, axis=-1)
        return jnp.einsum("bnts,bsnh->btnh", shares, v, precision="highest")

    def cut(q, k, v):
        return attention(q, Context((k,), (v,), reach, ordered=True), policy=FLOAT32)

    assert len(pieces._pieces(length, FLOAT32)) == 2
    want, got = total(plain), total(cut)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-4, atol=1e-3)
    for one, other in zip(got[1], want[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)

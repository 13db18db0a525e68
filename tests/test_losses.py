"""Cross-entropy against log-sum-exp in float64 numpy, gradients against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm.losses import Head, cross_entropy, token_scores
from llm.precision import FLOAT32, Policy

B, T, D, V = 3, 12, 8, 20
Z = 0.01


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    return {
        "hidden": rng.normal(size=(B, T, D)).astype(np.float32),
        "unembed": rng.normal(size=(D, V)).astype(np.float32),
        "targets": rng.integers(0, V, (B, T)).astype(np.int32),
        "weights": (rng.random((B, T)) * (rng.random((B, T)) > 0.3)).astype(np.float32),
    }


def reference(hidden, unembed, targets, weights, z_loss):
    """Sums token by token, in float64."""
    nll = z = correct = 0.0
    for b in range(B):
        for t in range(T):
            logits = hidden[b, t].astype(np.float64) @ unembed.astype(np.float64)
            log_z = np.log(np.exp(logits - logits.max()).sum()) + logits.max()
            nll += weights[b, t] * (log_z - logits[targets[b, t]])
            z += weights[b, t] * z_loss * log_z**2
            correct += weights[b, t] * (logits.argmax() == targets[b, t])
    return nll, z, correct


def plain(hidden, unembed, targets, weights, z_loss):
    """The same in a few lines, for jax to differentiate."""
    logits = jnp.einsum("btd,dv->btv", hidden, unembed, precision="highest")
    log_z = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
    return jnp.sum(weights * (log_z - chosen + z_loss * log_z**2))


@pytest.mark.parametrize("z_loss", [0.0, Z])
@pytest.mark.parametrize("chunk", [0, 1, 4, 5, 12, 100])
def test_sums(given, chunk, z_loss):
    hidden, unembed, *rest = given.values()
    total, sums = cross_entropy(
        Head(hidden, unembed), *rest, z_loss=z_loss, chunk=chunk, policy=FLOAT32
    )
    nll, z, correct = reference(*given.values(), z_loss)
    np.testing.assert_allclose(total, nll + z, rtol=1e-5)
    np.testing.assert_allclose(sums.nll, nll, rtol=1e-5)
    np.testing.assert_allclose(sums.z, z, rtol=1e-5)
    np.testing.assert_allclose(sums.correct, correct, rtol=1e-5)


@pytest.mark.parametrize("z_loss", [0.0, Z])
@pytest.mark.parametrize("chunk", [0, 3, 5])
def test_gradients(given, chunk, z_loss):
    _, _, targets, weights = given.values()

    def ours(hidden, unembed):
        # Half of it and something else, so that the cotangent is not one.
        total, _ = cross_entropy(
            Head(hidden, unembed),
            targets,
            weights,
            z_loss=z_loss,
            chunk=chunk,
            policy=FLOAT32,
        )
        return 0.5 * total + jnp.sum(hidden)

    def theirs(hidden, unembed):
        return 0.5 * plain(hidden, unembed, targets, weights, z_loss) + jnp.sum(hidden)

    arguments = given["hidden"], given["unembed"]
    value, gradients = jax.jit(jax.value_and_grad(ours, (0, 1)))(*arguments)
    np.testing.assert_allclose(value, theirs(*arguments), rtol=1e-5)
    for a, b in zip(
        gradients, jax.jit(jax.grad(theirs, (0, 1)))(*arguments), strict=True
    ):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_near(given):
    """Operands of the three products have 8 bits: a part in 100 of the largest."""
    hidden, unembed, targets, weights = given.values()

    def gradients(policy):
        def total(h, u):
            return cross_entropy(Head(h, u), targets, weights, policy=policy)[0]

        return jax.jit(jax.grad(total, (0, 1)))(hidden, unembed)

    for a, b in zip(
        gradients(Policy("bfloat16", "cpu")), gradients(FLOAT32), strict=True
    ):
        assert np.abs(a - b).max() < 0.01 * np.abs(b).max()


def test_weight_zero_counts_nothing(given):
    hidden, unembed, targets, weights = given.values()
    off = weights == 0
    wild = np.where(off[..., None], 1e3, hidden).astype(np.float32)

    def total(hidden):
        return cross_entropy(
            Head(hidden, unembed), targets, weights, z_loss=Z, policy=FLOAT32
        )[0]

    value, gradient = jax.jit(jax.value_and_grad(total))(wild)
    assert value == jax.jit(total)(hidden)
    assert (np.asarray(gradient)[off] == 0).all()
    nothing, sums = cross_entropy(
        Head(hidden, unembed), targets, weights * 0, z_loss=Z, policy=FLOAT32
    )
    assert nothing == 0 and all(value == 0 for value in sums)


def test_large_logits_do_not_overflow(given):
    hidden, unembed, targets, weights = given.values()

    def total(hidden):
        head = Head(hidden, unembed)
        return cross_entropy(head, targets, weights, policy=FLOAT32)[0]

    value, gradient = jax.jit(jax.value_and_grad(total))(hidden * 1e4)
    nll, _, _ = reference(hidden * 1e4, unembed, targets, weights, 0.0)
    np.testing.assert_allclose(value, nll, rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_token_scores(given):
    hidden, unembed, targets, _ = given.values()
    nll, hit = token_scores(Head(hidden, unembed), targets, policy=FLOAT32)
    assert nll.shape == hit.shape == (B, T)
    for b in range(B):
        logits = hidden[b].astype(np.float64) @ unembed
        log_z = np.log(np.exp(logits).sum(-1))
        want = log_z - logits[np.arange(T), targets[b]]
        np.testing.assert_allclose(nll[b], want, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(hit[b], logits.argmax(-1) == targets[b])


@pytest.mark.parametrize("softcap", [0.0, 3.0])
def test_bias_and_softcap(given, softcap):
    """Capped logits with a bias, and the gradients of all three, against autodiff."""
    hidden, unembed, targets, weights = given.values()
    bias = np.random.default_rng(1).normal(size=V).astype(np.float32)

    def capped(hidden, unembed, bias):
        logits = jnp.einsum("btd,dv->btv", hidden, unembed, precision="highest")
        logits = logits + bias[None, None]
        return softcap * jnp.tanh(logits / softcap) if softcap else logits

    def theirs(*arguments):
        logits = capped(*arguments)
        log_z = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
        return jnp.sum(weights * (log_z - chosen + Z * log_z**2))

    def ours(*arguments):
        head = Head(*arguments, softcap)
        return cross_entropy(head, targets, weights, z_loss=Z, chunk=4, policy=FLOAT32)[
            0
        ]

    arguments = hidden, unembed, bias
    for a, b in zip(
        jax.tree.leaves(jax.jit(jax.value_and_grad(ours, (0, 1, 2)))(*arguments)),
        jax.tree.leaves(jax.jit(jax.value_and_grad(theirs, (0, 1, 2)))(*arguments)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    logits = capped(*arguments)
    nll, _ = token_scores(Head(*arguments, softcap), targets, policy=FLOAT32)
    want = -jax.nn.log_softmax(logits)
    want = np.take_along_axis(np.asarray(want), targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(nll, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(Head(*arguments, softcap).logits(FLOAT32), logits, 1e-5)

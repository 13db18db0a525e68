"""Losses over tokens: sums with explicit weights, never means.

`B batch, T length, D width, V vocab, M rows of a chunk`

Cross-entropy with its projection is one function with a written-out gradient: logits of
a chunk of positions are made, turned into their own gradient in place (softmax minus
one-hot) and dropped, so that the [B, T, V] logits never exist and nothing is computed
twice. z-loss (arXiv:2204.02311) keeps the normaliser near one.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from llm.precision import Policy, matmul, row_major, transposed

_STRETCH = 1 << 19  # logits of a row that exist at a time, of `policy_scores`


class Head(NamedTuple):
    """What logits are made of: softcap(hidden_BTD @ kernel_DV + bias_V).

    Attributes:
      bias_V: None where there is none.
      softcap: bounds the logits by c * tanh(x / c); 0 does not. A number, not an array.
    """

    hidden_BTD: jax.Array
    kernel_DV: jax.Array
    bias_V: jax.Array | None = None
    softcap: float = 0.0

    def logits(self, policy: Policy) -> jax.Array:
        """[B, T, V] (or fewer leading axes), float32."""
        return _logits(
            self.hidden_BTD, self.kernel_DV, self.bias_V, self.softcap, policy
        )


def _logits(hidden, kernel_DV, bias_V, softcap, policy):
    leading = hidden.shape[:-1]
    hidden_MD = hidden.reshape(-1, hidden.shape[-1])
    logits_MV = matmul(hidden_MD, kernel_DV, policy)
    if bias_V is not None:
        logits_MV = logits_MV + bias_V[None]
    if softcap:
        logits_MV = softcap * jnp.tanh(logits_MV / softcap)
    return logits_MV.reshape(*leading, -1)


class TokenSums(NamedTuple):
    """Weighted sums over tokens, in nats where they are losses."""

    nll: jax.Array
    z: jax.Array
    correct: jax.Array


def cross_entropy(
    head: Head,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
    *,
    z_loss: float = 0.0,
    chunk: int = 0,
    policy: Policy,
) -> tuple[jax.Array, TokenSums]:
    """Sum over tokens of weight * (-log p(target) + z_loss * log(Z)**2).

    Args:
      chunk: positions whose logits exist at once; 0 is all. It should divide T, else
        the largest divisor below it is taken.

    Returns:
      The loss sum, which carries the gradient, and sums of its parts, which do not.
    """
    B, T = targets_BT.shape
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    T //= math.prod(sizes[a] for a in _cuts(B, T)[1])
    size = min(chunk or T, T)
    while T % size:
        size -= 1
    hidden, *out, softcap = head
    static = (z_loss, softcap, size, policy)
    return _cross_entropy(hidden, tuple(out), targets_BT, weights_BT, static)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _cross_entropy(hidden, out, targets, weights, static):
    z_loss, softcap, size, policy = static

    def sums_of(out, *rows):
        def step(sums, chunk):
            new, _, _ = _chunk(*chunk, out, z_loss, softcap, policy, gradient=False)
            return jax.tree.map(jnp.add, sums, new), None

        zero = (jnp.float32(0), TokenSums(*jnp.zeros(3, jnp.float32)))
        return jax.lax.scan(step, zero, _cut(size, *rows))[0], ()

    return _over_devices(sums_of, out, hidden, targets, weights)[0]


def _forward(hidden, out, targets, weights, static):
    z_loss, softcap, size, policy = static

    def gradients_of(out, hidden, *rows):
        def step(carry, chunk):
            new, dhidden, more = _chunk(
                *chunk, out, z_loss, softcap, policy, gradient=True
            )
            return jax.tree.map(jnp.add, carry, (new, more)), dhidden

        zero = (jnp.float32(0), TokenSums(*jnp.zeros(3, jnp.float32)))
        start = (zero, jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), out))
        chunks = _cut(size, hidden, *rows)
        totals, dhidden = jax.lax.scan(step, start, chunks)
        dhidden = dhidden.swapaxes(0, 1).reshape(hidden.shape)
        return totals, dhidden.astype(hidden.dtype)

    (sums, dout), dhidden = _over_devices(gradients_of, out, hidden, targets, weights)
    return sums, (dhidden, jax.tree.map(lambda g, x: g.astype(x.dtype), dout, out))


def _over_devices(function, out, *rows):
    """`function(out, *rows)` -> (totals, rows), where a mesh cuts rows, or layers.

    Each device then takes tokens of its own and the whole head, so that chunks of rows
    stay where they are and nothing is computed twice.
    """
    B, T = rows[0].shape[:2]
    batch, length = _cuts(B, T)
    if not length:
        return function(out, *rows)

    def piece(out, *rows):
        totals, made = function(out, *rows)
        return jax.lax.psum(totals, (*batch, *length)), made

    where = P(batch or None, length)
    return jax.shard_map(
        piece,
        in_specs=(P(), *(where for _ in rows)),
        out_specs=(P(), where),
        check_vma=False,
    )(out, *rows)


def _cuts(B: int, T: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Mesh axes that rows and lengths are cut over; none where those stay whole."""
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    if sizes.get("context", 1) * sizes.get("stage", 1) == 1:
        return (), ()
    length = tuple(a for a in ("context", "stage", "tensor") if a in sizes)
    batch = tuple(a for a in sizes if a not in length)
    if T % math.prod(sizes[a] for a in length) or B % math.prod(
        sizes[a] for a in batch
    ):
        return (), ()
    return batch, length


def _backward(static, saved, cotangents):
    del static
    scale = cotangents[0]
    dhidden, dout = jax.tree.map(lambda g: (g * scale).astype(g.dtype), saved)
    return dhidden, dout, None, None


_cross_entropy.defvjp(_forward, _backward)


def _cut(size, *arrays):
    """[B, T, ...] as [T / size, B, size, ...]: the batch stays whole on its devices."""

    def cut(x):
        B, T = x.shape[:2]
        return x.reshape(B, T // size, size, *x.shape[2:]).swapaxes(0, 1)

    return tuple(cut(x) for x in arrays)


def _chunk(hidden, targets, weights, out, z_loss, softcap, policy, *, gradient):
    """Sums of a chunk and, on request, the gradients of its loss sum."""
    unembed_DV, bias_V = out
    D, V = unembed_DV.shape
    hidden_MD = hidden.reshape(-1, D)
    target_M, weight_M = targets.reshape(-1), weights.reshape(-1)
    logits_MV = _logits(hidden_MD, unembed_DV, bias_V, softcap, policy)
    top_M1 = logits_MV.max(axis=-1, keepdims=True)
    exp_MV = jnp.exp(logits_MV - top_M1)
    sum_M1 = exp_MV.sum(axis=-1, keepdims=True)
    log_z_M = (top_M1 + jnp.log(sum_M1))[:, 0]
    chosen_M = jnp.take_along_axis(logits_MV, target_M[:, None], axis=1)[:, 0]
    nll = jnp.sum(weight_M * (log_z_M - chosen_M))
    z = z_loss * jnp.sum(weight_M * jnp.square(log_z_M))
    # A tie is not right: logits that are all alike predict nothing.
    as_high_M = jnp.sum(logits_MV >= chosen_M[:, None], axis=-1)
    correct = jnp.sum(weight_M * (as_high_M == 1))
    sums = (nll + z, TokenSums(nll, z, correct))
    if not gradient:
        return sums, None, None
    scale_M1 = (weight_M * (1 + 2 * z_loss * log_z_M))[:, None] / sum_M1
    is_target_MV = jnp.arange(V)[None, :] == target_M[:, None]
    dlogits_MV = exp_MV * scale_M1 - jnp.where(is_target_MV, weight_M[:, None], 0.0)
    if softcap:
        dlogits_MV = dlogits_MV * (1 - jnp.square(logits_MV / softcap))
    dbias_V = None if bias_V is None else dlogits_MV.sum(axis=0)
    dlogits_MV = dlogits_MV.astype(policy.operands)
    dhidden_MD = row_major(
        matmul(dlogits_MV, transposed(unembed_DV, policy), policy), policy
    )
    dunembed_DV = row_major(
        matmul(transposed(hidden_MD, policy), dlogits_MV, policy), policy
    )
    return sums, dhidden_MD.reshape(hidden.shape), (dunembed_DV, dbias_V)


def batch_loss(
    head: Head,
    own: dict[str, tuple[jax.Array, jax.Array]],
    batch: dict[str, jax.Array],
    *,
    z_loss: float,
    chunk: int,
    policy: Policy,
) -> tuple[jax.Array, jax.Array, dict[str, tuple[jax.Array, jax.Array]]]:
    """(loss sum, weight, {name: (sum, weight)}) of a batch with targets and weights.

    Args:
      own: sums of the model's own losses and figures. Those whose name ends in `_loss`
        are means over a weight of their own; they are added, brought to the weight of
        the targets, which divides all: by `own_share`, where the batch is a part of one
        and that is known of the whole.
    """
    weights_BT = batch["weights"].astype(jnp.float32)
    total, sums = cross_entropy(
        head,
        batch["targets"],
        weights_BT,
        z_loss=z_loss,
        chunk=chunk,
        policy=policy,
    )
    weight = weights_BT.sum()
    metrics = {"loss": (sums.nll, weight), "accuracy": (sums.correct, weight)}
    if z_loss:
        metrics["z_loss"] = (sums.z, weight)
    for name, (value, its_weight) in own.items():
        if name.endswith("_loss"):
            share = batch.get("own_share", weight / jnp.maximum(its_weight, 1.0))
            total = total + value * share
    return total, weight, metrics | own


def token_scores(
    head: Head,
    targets_BT: jax.Array,
    *,
    policy: Policy,
) -> tuple[jax.Array, jax.Array]:
    """-log p of every target, in nats, and whether it is the most likely token.

    The logits of one row exist at a time, also for the gradient.
    """

    @jax.checkpoint
    def row(_, given):
        hidden_TD, target_T = given
        logits_TV = head._replace(hidden_BTD=hidden_TD).logits(policy)
        chosen_T = jnp.take_along_axis(logits_TV, target_T[:, None], axis=1)[:, 0]
        nll_T = jax.nn.logsumexp(logits_TV, axis=-1) - chosen_T
        as_high_T = jnp.sum(logits_TV >= chosen_T[:, None], axis=-1)
        return None, (nll_T, as_high_T == 1)  # a tie is not right

    return jax.lax.scan(row, None, (head.hidden_BTD, targets_BT))[1]


def policy_scores(
    head: Head,
    targets_BT: jax.Array,
    *,
    temperature: float = 1.0,
    vocab_size: int,
    forbidden: tuple[int, ...] = (),
    policy: Policy,
) -> tuple[jax.Array, jax.Array]:
    """log p of every target, in nats, and the entropy of what it was sampled from.

    The logits of a stretch of positions of all rows exist at a time, also for the
    gradient: rows stay on the devices that hold them.

    Args:
      temperature: that of the sampling.
      vocab_size: ids from there on pad the vocabulary and are never sampled;
      forbidden: nor are these.
    """
    B, T = targets_BT.shape
    V = head.kernel_DV.shape[1]
    size = max(_STRETCH // V, 1)
    size = next(d for d in range(min(size, T), 0, -1) if T % d == 0)

    never = jnp.array([*forbidden, *range(vocab_size, V)], jnp.int32)

    @jax.checkpoint
    def stretch(_, given):
        hidden_BtD, target_Bt = given
        logits_BtV = head._replace(hidden_BTD=hidden_BtD).logits(policy) / temperature
        logits_BtV = logits_BtV.at[..., never].set(-jnp.inf)
        logprobs_BtV = jax.nn.log_softmax(logits_BtV, axis=-1)
        chosen_Bt1 = jnp.take_along_axis(logprobs_BtV, target_Bt[..., None], axis=2)
        # A token that cannot be has p log p = 0, which -inf * 0 is not.
        each_BtV = jnp.where(jnp.isfinite(logprobs_BtV), logprobs_BtV, 0.0)
        entropy_Bt = -jnp.sum(jnp.exp(logprobs_BtV) * each_BtV, axis=-1)
        return None, (chosen_Bt1[..., 0], entropy_Bt)

    cut = [
        x.reshape(B, T // size, size, *x.shape[2:]).swapaxes(0, 1)
        for x in (head.hidden_BTD, targets_BT)
    ]
    _, made = jax.lax.scan(stretch, None, tuple(cut))
    return tuple(x.swapaxes(0, 1).reshape(B, T) for x in made)


def answer_sums(x_BT: jax.Array, segments_BT: jax.Array) -> jax.Array:
    """Sums over the tokens of each answer of rows of preferences, [B, records, 2].

    Args:
      segments_BT: of record r, from 1, those of its preferred answer are 2r - 1, and
        those of its rejected one 2r (`llm/data/preference_rows.py`).
    """
    # A record has two tokens at least, and a row one more than its inputs.
    records = (segments_BT.shape[1] + 2) // 2
    sums_BS = jax.vmap(
        lambda x_T, segment_T: jax.ops.segment_sum(x_T, segment_T, 2 * records + 1)
    )(x_BT, segments_BT)
    return sums_BS[:, 1:].reshape(-1, records, 2)


def answer_logprobs(
    head: Head, batch: dict[str, jax.Array], *, policy: Policy
) -> tuple[jax.Array, jax.Array]:
    """Log-likelihoods of the answers of rows of preferences, and the tokens of each,
    both [B, records, 2]; an answer that is not there has none."""
    nll_BT, _ = token_scores(head, batch["targets"], policy=policy)
    weights_BT = batch["weights"].astype(jnp.float32)
    return (
        answer_sums(-nll_BT * weights_BT, batch["segments"]),
        answer_sums(weights_BT, batch["segments"]),
    )

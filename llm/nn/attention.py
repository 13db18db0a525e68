"""Scaled dot-product attention with grouped heads, segments and a written-out gradient.

Heads are brought next to the batch, so that every product is a batched matrix product
with its contracted axes adjacent; scores, exponentials and sums are float32. The
backward pass works on transposed scores (keys by queries), where four of its five
products need no transpose and the fifth transposes only the small keys.

`B batch, T query, S key, N heads, K kv heads, G heads per kv head, H head dim, R = G*T`
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from llm.precision import Policy, matmul, over_batch, row_major, transposed

_MASKED = -1e30


class Reach(NamedTuple):
    """Who may attend to whom: same segment, and not later than the query.

    Segment 0 is padding. With `causal` false, position plays no part, only `window`
    (keys at most window - 1 positions away), where it is not 0.
    """

    positions_BT: jax.Array
    segments_BT: jax.Array
    positions_BS: jax.Array
    segments_BS: jax.Array

    def mask_BTS(self, causal: bool = True, window: int = 0) -> jax.Array:
        """True where the query may attend to the key."""
        ahead_BTS = self.positions_BT[:, :, None] - self.positions_BS[:, None, :]
        allowed_BTS = self.segments_BT[:, :, None] == self.segments_BS[:, None, :]
        if causal:
            allowed_BTS &= ahead_BTS >= 0
        if window:
            allowed_BTS &= jnp.abs(ahead_BTS) < window
        return allowed_BTS


def attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    reach: Reach,
    *,
    causal: bool = True,
    window: int = 0,
    policy: Policy,
) -> jax.Array:
    """Attends with scale 1/sqrt(H); N is a multiple of K. Returns BTNH."""
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    G = N // K
    q_BKRH = (q_BTNH * H**-0.5).reshape(B, T, K, G, H).transpose(0, 2, 3, 1, 4)
    q_BKRH = q_BKRH.reshape(B, K, G * T, H).astype(policy.operands)
    k_BKSH = k_BSKH.swapaxes(1, 2).astype(policy.operands)
    v_BKSH = v_BSKH.swapaxes(1, 2).astype(policy.operands)
    mask_BTS = reach.mask_BTS(causal, window)
    o_BKRH = _core(q_BKRH, k_BKSH, v_BKSH, mask_BTS, policy)
    o_BTNH = o_BKRH.reshape(B, K, G, T, H).transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)
    return o_BTNH.astype(policy.activations)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _core(q_BKRH, k_BKSH, v_BKSH, mask_BTS, policy):
    return _forward(q_BKRH, k_BKSH, v_BKSH, mask_BTS, policy)[0]


def _forward(q_BKRH, k_BKSH, v_BKSH, mask_BTS, policy):
    given = (q_BKRH, k_BKSH, v_BKSH, mask_BTS)
    o_BKRH, lse_BKGT = over_batch(_attend, given, policy)
    return o_BKRH, (*given, o_BKRH, lse_BKGT)


def _backward(policy, saved, do_BKRH):
    return (*over_batch(_attend_backward, (*saved, do_BKRH), policy), None)


_core.defvjp(_forward, _backward)


def _attend(q_KRH, k_KSH, v_KSH, mask_TS, policy):
    """Output and log-normaliser of one example."""
    K, R, _ = q_KRH.shape
    T, S = mask_TS.shape
    scores_KRS = matmul(q_KRH, transposed(k_KSH, policy), policy)
    # Elementwise work keeps G and T apart: the mask broadcasts, and loops vectorise.
    scores_KGTS = scores_KRS.reshape(K, R // T, T, S)
    scores_KGTS = jnp.where(mask_TS[None, None], scores_KGTS, _MASKED)
    top_KGT1 = scores_KGTS.max(axis=-1, keepdims=True)
    weights_KGTS = jnp.exp(scores_KGTS - top_KGT1)
    sum_KGT1 = weights_KGTS.sum(axis=-1, keepdims=True)
    weights_KRS = weights_KGTS.astype(policy.operands).reshape(K, R, S)
    o_KRH = matmul(weights_KRS, v_KSH, policy) / sum_KGT1.reshape(K, R, 1)
    lse_KGT = (top_KGT1 + jnp.log(sum_KGT1))[..., 0]
    return row_major(o_KRH, policy), lse_KGT


def _attend_backward(q_KRH, k_KSH, v_KSH, mask_TS, o_KRH, lse_KGT, do_KRH, policy):
    """Gradients of one example for queries, keys and values."""
    K, R, _ = q_KRH.shape
    T, S = mask_TS.shape
    G = R // T
    delta_KGT = (do_KRH * o_KRH).sum(axis=-1).reshape(K, G, T)
    do_KRH = do_KRH.astype(policy.operands)
    scores_KSR = matmul(k_KSH, transposed(q_KRH, policy), policy)
    dweights_KSR = matmul(v_KSH, transposed(do_KRH, policy), policy)
    exponent_KSGT = scores_KSR.reshape(K, S, G, T) - lse_KGT[:, None]
    allowed_KSGT = mask_TS.T[None, :, None]
    weights_KSGT = jnp.exp(jnp.where(allowed_KSGT, exponent_KSGT, _MASKED))
    dweights_KSGT = dweights_KSR.reshape(K, S, G, T) - delta_KGT[:, None]
    dscores_KSGT = (weights_KSGT * dweights_KSGT).astype(policy.operands)
    dscores_KSR = dscores_KSGT.reshape(K, S, R)
    weights_KSR = weights_KSGT.astype(policy.operands).reshape(K, S, R)
    dv_KSH = row_major(matmul(weights_KSR, do_KRH, policy), policy)
    dk_KSH = row_major(matmul(dscores_KSR, q_KRH, policy), policy)
    dq_KHR = row_major(matmul(transposed(k_KSH, policy), dscores_KSR, policy), policy)
    given = q_KRH.dtype
    return (
        dq_KHR.swapaxes(1, 2).astype(given),
        dk_KSH.astype(given),
        dv_KSH.astype(given),
    )

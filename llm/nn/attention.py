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

from llm.precision import Policy, matmul, row_major, transposed

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
    S, K = k_BSKH.shape[1:3]
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
    scores_BKRS = matmul(q_BKRH, transposed(k_BKSH, policy), policy)
    scores_BKRS = jnp.where(_over_heads(mask_BTS, q_BKRH), scores_BKRS, _MASKED)
    top_BKR1 = scores_BKRS.max(axis=-1, keepdims=True)
    weights_BKRS = jnp.exp(scores_BKRS - top_BKR1)
    sum_BKR1 = weights_BKRS.sum(axis=-1, keepdims=True)
    o_BKRH = matmul(weights_BKRS, v_BKSH, policy) / sum_BKR1
    o_BKRH = row_major(o_BKRH, policy)
    lse_BKR = (top_BKR1 + jnp.log(sum_BKR1))[..., 0]
    return o_BKRH, (q_BKRH, k_BKSH, v_BKSH, mask_BTS, o_BKRH, lse_BKR)


def _backward(policy, saved, do_BKRH):
    q_BKRH, k_BKSH, v_BKSH, mask_BTS, o_BKRH, lse_BKR = saved
    delta_BKR = (do_BKRH * o_BKRH).sum(axis=-1)
    do_BKRH = do_BKRH.astype(policy.operands)
    allowed_BSR = _over_heads(mask_BTS.swapaxes(1, 2), q_BKRH, by_key=True)
    scores_BKSR = matmul(k_BKSH, transposed(q_BKRH, policy), policy)
    scores_BKSR = jnp.where(allowed_BSR, scores_BKSR, _MASKED)
    weights_BKSR = jnp.exp(scores_BKSR - lse_BKR[:, :, None, :])
    dv_BKSH = matmul(weights_BKSR, do_BKRH, policy)
    dweights_BKSR = matmul(v_BKSH, transposed(do_BKRH, policy), policy)
    dscores_BKSR = weights_BKSR * (dweights_BKSR - delta_BKR[:, :, None, :])
    dscores_BKSR = dscores_BKSR.astype(policy.operands)
    dk_BKSH = matmul(dscores_BKSR, q_BKRH, policy)
    dq_BKHR = matmul(transposed(k_BKSH, policy), dscores_BKSR, policy)
    given = q_BKRH.dtype
    dq_BKRH = row_major(dq_BKHR, policy).swapaxes(2, 3)
    dk_BKSH, dv_BKSH = row_major(dk_BKSH, policy), row_major(dv_BKSH, policy)
    return dq_BKRH.astype(given), dk_BKSH.astype(given), dv_BKSH.astype(given), None


_core.defvjp(_forward, _backward)


def _over_heads(mask: jax.Array, q_BKRH: jax.Array, by_key: bool = False) -> jax.Array:
    """Repeats a BTS (or BST) mask for the G heads of each group: B1RS (or B1SR)."""
    B, R = mask.shape[0], q_BKRH.shape[2]
    T = mask.shape[2 if by_key else 1]
    if by_key:
        mask_BSGT = jnp.broadcast_to(mask[:, :, None, :], (B, mask.shape[1], R // T, T))
        return mask_BSGT.reshape(B, 1, -1, R)
    S = mask.shape[2]
    mask_BGTS = jnp.broadcast_to(mask[:, None], (B, R // T, T, S))
    return mask_BGTS.reshape(B, 1, R, S)

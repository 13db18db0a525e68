"""Attention with its weights in the open, for what the fast form does not know.

Scores may be capped (Gemma 2) or biased (T5, ALiBi), and the weights of all heads can
be looked at. XLA derives the gradient; `llm/nn/attention.py` is the fast form of the
rest.

`B batch, T query, S key, N heads, K kv heads, G heads per kv head, H head dim`
"""

import jax
import jax.numpy as jnp

from llm.nn.context import Context
from llm.precision import Policy, matmul

_MASKED = -1e30


def attention_weights(
    q_BTNH: jax.Array,
    context: Context,
    *,
    causal: bool = True,
    window: int | jax.Array | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
    bias_BNTS: jax.Array | None = None,
    policy: Policy,
) -> jax.Array:
    """Shares that each query gives to the keys, BNTS; float32, 0 where it may not look.

    Args:
      scale: of the scores; 1/sqrt(H) where None.
      softcap: bounds the scores by c * tanh(x / c); 0 does not.
      bias_BNTS: added to the scores; its first axis may be 1.
    """
    B, T, N, H = q_BTNH.shape
    K = context.keys[0].shape[2]
    scale = H**-0.5 if scale is None else scale
    q_BKRH = (q_BTNH * scale).reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
    q_BKRH = q_BKRH.reshape(B, K, N // K * T, H)
    parts = [
        matmul(q_BKRH, k_BSKH.transpose(0, 2, 3, 1), policy) for k_BSKH in context.keys
    ]
    scores_BNTS = jnp.concatenate(parts, axis=-1).reshape(B, N, T, -1)
    if softcap:
        scores_BNTS = softcap * jnp.tanh(scores_BNTS / softcap)
    if bias_BNTS is not None:
        scores_BNTS = scores_BNTS + bias_BNTS
    mask_B1TS = context.reach.mask_BTS(causal, window)[:, None]
    scores_BNTS = jnp.where(mask_B1TS, scores_BNTS, _MASKED)
    return jnp.where(mask_B1TS, jax.nn.softmax(scores_BNTS, axis=-1), 0.0)


def attended(weights_BNTS: jax.Array, context: Context, policy: Policy) -> jax.Array:
    """The weighted values, BTNH."""
    B, N, T, S = weights_BNTS.shape
    K, H = context.values[0].shape[2:]
    weights_BKRS = weights_BNTS.reshape(B, K, N // K * T, S)
    o_BKRH, first = jnp.float32(0), 0
    for v_BSKH in context.values:
        after = first + v_BSKH.shape[1]
        part_BKRS = weights_BKRS[..., first:after]
        o_BKRH += matmul(part_BKRS, v_BSKH.swapaxes(1, 2), policy)
        first = after
    o_BTNH = o_BKRH.reshape(B, N, T, H).swapaxes(1, 2)
    return o_BTNH.astype(policy.activations)

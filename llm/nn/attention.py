"""Scaled dot-product attention with grouped heads, segments and a written-out gradient.

Heads are brought next to the batch, so that every product is a batched matrix product
with its contracted axes adjacent; scores, exponentials and sums are float32. The
backward pass works on transposed scores (keys by queries), where four of its five
products need no transpose and the fifth transposes only the small keys. Queries are
taken in pieces where what follows a piece in its row cannot be its past: a third of the
scores of a long causal row are then never made.

`B batch, T query, S key, N heads, K kv heads, G heads per kv head, H head dim, R = G*T`
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from llm.errors import InputError
from llm.nn import cudnn, ring
from llm.nn.context import Context
from llm.nn.cudnn import cudnn_attention
from llm.nn.scores import attended, attention_weights
from llm.nn.splash import fits, splash_attention
from llm.precision import Policy, matmul, over_batch, row_major, transposed

KERNELS = ("auto", "xla", "splash", "cudnn")
_MASKED = -1e30
_PIECE = 128  # queries


def attention(
    q_BTNH: jax.Array,
    context: Context,
    *,
    causal: bool = True,
    window: int | jax.Array | None = None,
    scale: float | None = None,
    policy: Policy,
) -> jax.Array:
    """Attends; N is a multiple of K. Returns BTNH.

    Args:
      scale: of the scores; 1/sqrt(H) where None.
    """
    if len(context.keys) > 1:  # a past, which would be copied to be joined
        weights_BNTS = attention_weights(
            q_BTNH, context, causal=causal, window=window, scale=scale, policy=policy
        )
        return attended(weights_BNTS, context, policy)
    (k_BSKH,), (v_BSKH,) = context.keys, context.values
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    scale = H**-0.5 if scale is None else scale
    if ring.goes_around(context):
        return ring.ring_attention(
            q_BTNH, context, causal=causal, window=window, scale=scale, policy=policy
        )
    past = causal and not context.ordered
    chosen = choice(policy, T, H, window=window, past=past)
    if chosen != "xla":
        given = (x.astype(policy.operands) for x in (q_BTNH * scale, k_BSKH, v_BSKH))
    if chosen == "splash":
        return splash_attention(
            *given,
            context.reach.segments_BT,
            causal=causal,
            window=window or 0,
            chip=policy.chip,
        ).astype(policy.activations)
    if chosen == "cudnn":
        mask_BTS = context.reach.mask_BTS(causal, window)
        made_BTNH = cudnn_attention(*given, mask_BTS, ordered=context.ordered)
        return made_BTNH.astype(policy.activations)
    q_BTKGH = (q_BTNH * scale).reshape(B, T, K, N // K, H)
    q_BKGTH = q_BTKGH.transpose(0, 2, 3, 1, 4).astype(policy.operands)
    k_BKSH = k_BSKH.swapaxes(1, 2).astype(policy.operands)
    v_BKSH = v_BSKH.swapaxes(1, 2).astype(policy.operands)
    mask_BTS = context.reach.mask_BTS(causal, window)
    pieces = _pieces(T, policy) if context.ordered else ((0, T, k_BKSH.shape[2]),)
    o_BKGTH = _core(q_BKGTH, k_BKSH, v_BKSH, mask_BTS, pieces, policy)
    o_BTNH = o_BKGTH.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)
    return o_BTNH.astype(policy.activations)


def choice(
    policy: Policy, rows: int, head_dim: int, *, window: Any = None, past: bool = False
) -> str:
    """What carries out attention of rows of so many tokens: splash, cudnn or xla.

    Where the policy names one it is that, but for what lies in a cache: that is always
    for XLA, as its queries are few.

    Args:
      window: an array is one that only the running program knows.
      past: keys lie in a cache, or some may be seen from before them.

    Raises:
      InputError: the one that is named cannot do it.
    """
    if past or policy.attention == "xla":
        return "xla"
    lacking = {
        "splash": _splash_lacks(policy, rows, head_dim, window),
        "cudnn": cudnn.lacks(policy, rows, head_dim),
    }
    if policy.attention == "auto":  # cuDNN's only by name, until a GPU has shown it
        return "xla" if lacking["splash"] else "splash"
    if policy.attention not in lacking:
        raise InputError(
            got=f"train.attention {policy.attention!r}",
            want=f"one of {', '.join(KERNELS)}",
        )
    if lacking[policy.attention]:
        raise InputError(
            got=f"train.attention {policy.attention!r}, which "
            f"{lacking[policy.attention]}",
            want="a kernel for these rows and this chip",
            do="set train.attention=auto",
        )
    return policy.attention


def _splash_lacks(policy: Policy, rows: int, head_dim: int, window: Any) -> str:
    if policy.platform != "tpu":
        return f"runs on TPUs, not on a {policy.platform}"
    if not (window is None or isinstance(window, int)):
        return "does not take windows that differ a layer"
    if not fits(rows, head_dim):
        return f"does not take rows of {rows} with heads of {head_dim}"
    return ""


def kernel(
    policy: Policy, rows: int, head_dim: int, windows: Sequence = (), around: int = 1
) -> str:
    """What carries attention out on a backend, for the log.

    Args:
      windows: of a scanned stack of layers.
      around: devices of the mesh's axis `context`.

    Raises:
      InputError: as `choice`.
    """
    if around > 1 and rows % around == 0:
        if policy.attention not in ("auto", "xla"):
            raise InputError(
                got=f"train.attention {policy.attention!r} on a mesh with context "
                f"{around}",
                want="auto or xla: keys go around a ring of XLA products there",
            )
        return f"XLA products, around a ring of {around}"
    window = jnp.zeros(()) if windows else None
    chosen = choice(policy, rows, head_dim, window=window)
    if chosen != "xla":
        return {"splash": "splash (Pallas)", "cudnn": "cuDNN's flash attention"}[chosen]
    if policy.platform != "cpu":
        if policy.attention == "xla":
            return "XLA products over the batch, as asked for"
        if policy.platform == "tpu":
            why = f"splash {_splash_lacks(policy, rows, head_dim, window)}"
        else:
            lacking = cudnn.lacks(policy, rows, head_dim)
            why = f"cuDNN's {lacking}" if lacking else "cuDNN's was not asked for"
        return f"XLA products over the batch, as {why}"
    if policy.devices == 1:
        return f"XLA products, an example at a time, {_PIECE} queries a piece"
    return "XLA products over the batch"


def _pieces(T: int, policy: Policy) -> tuple[tuple[int, int, int], ...]:
    """(first query, query after the last, keys) of each piece of an ordered row."""
    size = _PIECE if policy.platform == "cpu" and T % _PIECE == 0 else T
    return tuple((at, at + size, at + size) for at in range(0, T, size))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _core(q_BKGTH, k_BKSH, v_BKSH, mask_BTS, pieces, policy):
    return _forward(q_BKGTH, k_BKSH, v_BKSH, mask_BTS, pieces, policy)[0]


def _forward(q_BKGTH, k_BKSH, v_BKSH, mask_BTS, pieces, policy):
    def example(q_KGTH, k_KSH, v_KSH, mask_TS, policy):
        made = [
            _attend(
                q_KGTH[:, :, a:b], k_KSH[:, :S], v_KSH[:, :S], mask_TS[a:b, :S], policy
            )
            for a, b, S in pieces
        ]
        o_KGTH, lse_KGT = (jnp.concatenate(x, axis=2) for x in zip(*made, strict=True))
        return row_major(o_KGTH, policy), lse_KGT

    # The names are those of the fused kernel's (llm/nn/splash.py).
    q_BKGTH, k_BKSH, v_BKSH = (
        checkpoint_name(x, f"attention_{name}")
        for x, name in ((q_BKGTH, "q"), (k_BKSH, "k"), (v_BKSH, "v"))
    )
    given = (q_BKGTH, k_BKSH, v_BKSH, mask_BTS)
    made = over_batch(example, given, _scores_bytes(q_BKGTH, pieces), policy)
    o_BKGTH, lse_BKGT = (checkpoint_name(x, "context") for x in made)
    return o_BKGTH, (*given, o_BKGTH, lse_BKGT)


def _backward(pieces, policy, saved, do_BKGTH):
    def example(q_KGTH, k_KSH, v_KSH, mask_TS, o_KGTH, lse_KGT, do_KGTH, policy):
        delta_KGT = (do_KGTH * o_KGTH).sum(axis=-1)
        do_KGTH = do_KGTH.astype(policy.operands)
        dq = []
        dk_KSH = jnp.zeros(k_KSH.shape, jnp.float32)
        dv_KSH = jnp.zeros(v_KSH.shape, jnp.float32)
        for a, b, S in pieces:
            rows = [x[:, :, a:b] for x in (q_KGTH, do_KGTH, lse_KGT, delta_KGT)]
            dq_KGTH, dk, dv = _attend_backward(
                *rows, k_KSH[:, :S], v_KSH[:, :S], mask_TS[a:b, :S], policy
            )
            dq.append(dq_KGTH)
            dk_KSH, dv_KSH = dk_KSH.at[:, :S].add(dk), dv_KSH.at[:, :S].add(dv)
        gradients = (jnp.concatenate(dq, axis=2), dk_KSH, dv_KSH)
        return tuple(row_major(g.astype(q_KGTH.dtype), policy) for g in gradients)

    each = _scores_bytes(do_BKGTH, pieces)
    return (*over_batch(example, (*saved, do_BKGTH), each, policy), None)


_core.defvjp(_forward, _backward)


def _scores_bytes(q_BKGTH, pieces) -> int:
    """Of the largest scores of an example that exist at once."""
    _, K, G, _, _ = q_BKGTH.shape
    return 4 * K * G * max((b - a) * S for a, b, S in pieces)


def _attend(q_KGTH, k_KSH, v_KSH, mask_TS, policy):
    """Output and log-normaliser of one piece of an example."""
    K, G, T, H = q_KGTH.shape
    S = k_KSH.shape[1]
    q_KRH = q_KGTH.reshape(K, G * T, H)
    scores_KRS = matmul(q_KRH, transposed(k_KSH, policy), policy)
    # Elementwise work keeps G and T apart: the mask broadcasts, and loops vectorise.
    scores_KGTS = scores_KRS.reshape(K, G, T, S)
    scores_KGTS = jnp.where(mask_TS[None, None], scores_KGTS, _MASKED)
    top_KGT1 = scores_KGTS.max(axis=-1, keepdims=True)
    weights_KGTS = jnp.exp(scores_KGTS - top_KGT1)
    sum_KGT1 = weights_KGTS.sum(axis=-1, keepdims=True)
    weights_KRS = weights_KGTS.astype(policy.operands).reshape(K, G * T, S)
    o_KRH = matmul(weights_KRS, v_KSH, policy)
    o_KGTH = o_KRH.reshape(K, G, T, H) / sum_KGT1
    return o_KGTH, (top_KGT1 + jnp.log(sum_KGT1))[..., 0]


def _attend_backward(
    q_KGTH, do_KGTH, lse_KGT, delta_KGT, k_KSH, v_KSH, mask_TS, policy
):
    """Gradients of one piece of an example for queries, keys and values."""
    K, G, T, H = q_KGTH.shape
    S, R = k_KSH.shape[1], G * T
    q_KRH, do_KRH = q_KGTH.reshape(K, R, H), do_KGTH.reshape(K, R, H)
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
    return dq_KHR.swapaxes(1, 2).reshape(K, G, T, H), dk_KSH, dv_KSH

"""Ring attention: rows longer than one device's memory (Liu et al., arXiv:2310.01889).

Each device of the mesh axis `context` holds a piece of every row. Its queries stay;
keys and values, with their positions and segments, go once around the ring, and each
piece that passes adds to a softmax in float32 that is normalised at the end (Milakov &
Gimelshein, 1805.02867). On the way back they go around again, with their gradients
beside them, which are complete when they are home. A device holds two pieces of keys
and values and, `_PIECE` queries at a time, their scores against one.

Who may attend to whom is said by positions and segments (`llm/nn/context.py`), so
packed rows, windows and prefixes need no more than these to go around, too.

`B batch, T query, S key, N heads, K kv heads, G heads per kv head, H head dim`
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from llm import sharding
from llm.nn.context import Context, Reach
from llm.precision import Policy

AXIS = "context"
_MASKED = -1e30
_PIECE = 256  # queries whose scores against a piece of keys exist at once


def ways() -> int:
    """Devices of the ring that a program is traced for; 1 is none."""
    return sharding.ways(AXIS)


def goes_around(context: Context) -> bool:
    """Whether rows are cut; those that `context` does not divide are not."""
    lengths = (x.shape[1] for x in (context.reach.positions_BT, *context.keys))
    return ways() > 1 and not any(length % ways() for length in lengths)


def ring_attention(
    q_BTNH: jax.Array,
    context: Context,
    *,
    causal: bool,
    window: int | jax.Array | None,
    scale: float,
    policy: Policy,
) -> jax.Array:
    """As `attention` of `llm/nn/attention.py`, of rows cut over the ring."""
    (k_BSKH,), (v_BSKH,) = context.keys, context.values
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    q_BTKGH = (q_BTNH * scale).reshape(B, T, K, N // K, H).astype(policy.operands)
    k_BSKH, v_BSKH = (x.astype(policy.operands) for x in (k_BSKH, v_BSKH))
    window = jnp.int32(0 if window is None else window)
    o_BTKGH = _ring(q_BTKGH, k_BSKH, v_BSKH, context.reach, window, causal)
    return o_BTKGH.reshape(B, T, N, H).astype(policy.activations)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _ring(q_BTKGH, k_BSKH, v_BSKH, reach, window, causal):
    return _forward(q_BTKGH, k_BSKH, v_BSKH, reach, window, causal)[0]


def _forward(q_BTKGH, k_BSKH, v_BSKH, reach, window, causal):
    given = (q_BTKGH, k_BSKH, v_BSKH, reach, window)
    body = functools.partial(_pass, causal=causal)
    o_BTKGH, lse_BTKG = _on_the_ring(body, given, "BTKGH BTKG")
    return o_BTKGH, (*given, o_BTKGH, lse_BTKG)


def _backward(causal, saved, do_BTKGH):
    body = functools.partial(_pass_back, causal=causal)
    gradients = _on_the_ring(body, (*saved, do_BTKGH), "BTKGH BSKH BSKH")
    return (*gradients, None, None)


_ring.defvjp(_forward, _backward)


def _on_the_ring(body, given: tuple, out: str) -> Any:
    """`body` on the pieces of each device, of rows and heads as they lie there.

    Args:
      out: what each result is, by the letters of its axes.
    """
    q_BTKGH = given[0]
    batch = sharding.batch_axes(q_BTKGH.shape[0])
    cut_heads = "tensor" in sharding.mesh_axes()
    cut_heads &= q_BTKGH.shape[2] % sharding.ways("tensor") == 0
    heads = "tensor" if cut_heads else None
    axes = {"B": batch or None, "T": AXIS, "S": AXIS, "K": heads}

    def spec(x):  # all have their rows and lengths first, and then the heads
        return P(*(axes[a] for a in "BTK"[: x.ndim])) if x.ndim > 1 else P()

    specs = tuple(P(*(axes.get(a) for a in names)) for names in out.split())
    cut = jax.tree.map(spec, given)
    return jax.shard_map(body, in_specs=cut, out_specs=specs, check_vma=False)(*given)


def _pass(q_BTKGH, k_BSKH, v_BSKH, reach: Reach, window, *, causal):
    """Output and log-normaliser of the queries of this device."""
    B, T, K, G = q_BTKGH.shape[:4]

    def meet(sums, passing):
        k_BSKH, v_BSKH, keys = passing

        def piece(given):
            q_BTKGH, queries, (top_BTKG, sum_BTKG, o_BTKGH) = given
            scores_BTKGS = _scores(q_BTKGH, k_BSKH, queries, keys, window, causal)
            new_BTKG = jnp.maximum(top_BTKG, scores_BTKGS.max(axis=-1))
            weights_BTKGS = jnp.exp(scores_BTKGS - new_BTKG[..., None])
            kept_BTKG = jnp.exp(top_BTKG - new_BTKG)
            part_BTKGH = _product("BTKGS,BSKH->BTKGH", weights_BTKGS, v_BSKH)
            return (
                new_BTKG,
                sum_BTKG * kept_BTKG + weights_BTKGS.sum(axis=-1),
                o_BTKGH * kept_BTKG[..., None] + part_BTKGH,
            )

        return _by_pieces(piece, (q_BTKGH, _queries(reach), sums))

    none_BTKG = jnp.zeros((B, T, K, G), jnp.float32)
    sums = (none_BTKG + _MASKED, none_BTKG, jnp.zeros(q_BTKGH.shape, jnp.float32))
    start = (sums, (k_BSKH, v_BSKH, _keys(reach)))

    def step(carry, _):
        sums, passing = carry
        # The next piece is under way while this one is worked on.
        return (meet(sums, passing), _next(passing)), None

    (sums, passing), _ = jax.lax.scan(step, start, None, length=_size() - 1)
    top_BTKG, sum_BTKG, o_BTKGH = meet(sums, passing)
    return o_BTKGH / sum_BTKG[..., None], top_BTKG + jnp.log(sum_BTKG)


def _pass_back(
    q_BTKGH,
    k_BSKH,
    v_BSKH,
    reach: Reach,
    window,
    o_BTKGH,
    lse_BTKG,
    do_BTKGH,
    *,
    causal,
):
    """Gradients for the queries, keys and values of this device."""
    do_BTKGH = do_BTKGH.astype(jnp.float32)
    delta_BTKG = (do_BTKGH * o_BTKGH).sum(axis=-1)

    def meet(dq_BTKGH, passing, dk_BSKH, dv_BSKH):
        k_BSKH, v_BSKH, keys = passing

        def piece(given):
            q_BTKGH, do_BTKGH, lse_BTKG, delta_BTKG, queries, dq_BTKGH = given
            scores_BTKGS = _scores(q_BTKGH, k_BSKH, queries, keys, window, causal)
            weights_BTKGS = jnp.exp(scores_BTKGS - lse_BTKG[..., None])
            weights_BTKGS = jnp.where(scores_BTKGS > _MASKED, weights_BTKGS, 0.0)
            do_BTKGH = do_BTKGH.astype(q_BTKGH.dtype)
            dweights_BTKGS = _product("BTKGH,BSKH->BTKGS", do_BTKGH, v_BSKH)
            dscores_BTKGS = weights_BTKGS * (dweights_BTKGS - delta_BTKG[..., None])
            dq = _product("BTKGS,BSKH->BTKGH", dscores_BTKGS, k_BSKH)
            dk = _product("BTKGS,BTKGH->BSKH", dscores_BTKGS, q_BTKGH)
            dv = _product("BTKGS,BTKGH->BSKH", weights_BTKGS, do_BTKGH)
            return dq_BTKGH + dq, dk, dv

        own = (q_BTKGH, do_BTKGH, lse_BTKG, delta_BTKG, _queries(reach), dq_BTKGH)
        dq_BTKGH, dk, dv = _by_pieces(piece, own, added=2)
        return dq_BTKGH, dk_BSKH + dk, dv_BSKH + dv

    def step(carry, _):
        dq_BTKGH, passing, dk_BSKH, dv_BSKH = carry
        ahead = _next(passing)
        dq_BTKGH, dk_BSKH, dv_BSKH = meet(dq_BTKGH, passing, dk_BSKH, dv_BSKH)
        return (dq_BTKGH, ahead, *_next((dk_BSKH, dv_BSKH))), None

    zeros = [jnp.zeros(x.shape, jnp.float32) for x in (q_BTKGH, k_BSKH, v_BSKH)]
    start = (zeros[0], (k_BSKH, v_BSKH, _keys(reach)), *zeros[1:])
    carry, _ = jax.lax.scan(step, start, None, length=_size() - 1)
    # After the last meeting the gradients are one step from home.
    dq_BTKGH, dk_BSKH, dv_BSKH = meet(*carry)
    dk_BSKH, dv_BSKH = _next((dk_BSKH, dv_BSKH))
    return tuple(x.astype(q_BTKGH.dtype) for x in (dq_BTKGH, dk_BSKH, dv_BSKH))


def _scores(q_BTKGH, k_BSKH, queries, keys, window, causal):
    reach = Reach(*queries, *keys)
    mask_BTS = reach.mask_BTS(causal, window)
    scores_BTKGS = _product("BTKGH,BSKH->BTKGS", q_BTKGH, k_BSKH)
    return jnp.where(mask_BTS[:, :, None, None], scores_BTKGS, _MASKED)


def _product(spec, a, b):
    """Operands of the second's dtype, result float32."""
    return jnp.einsum(spec, a.astype(b.dtype), b, preferred_element_type=jnp.float32)


def _queries(reach: Reach):
    return reach.positions_BT, reach.segments_BT


def _keys(reach: Reach):
    return reach.positions_BS, reach.segments_BS, reach.prefix_BS


def _size() -> int:
    return jax.lax.axis_size(AXIS)


def _next(passing):
    """Hands the arrays to the next device of the ring, and takes the former's."""
    size = _size()
    around = [(i, (i + 1) % size) for i in range(size)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, AXIS, around), passing)


def _by_pieces(piece, arrays, added: int = 0):
    """`piece` of all queries, a few at a time; its last `added` results are summed."""
    T = jax.tree.leaves(arrays)[0].shape[1]
    size = _PIECE if T % _PIECE == 0 else T
    if size == T:
        return piece(arrays)

    def cut(x):
        return jnp.moveaxis(x.reshape(x.shape[0], T // size, size, *x.shape[2:]), 1, 0)

    def step(sums, given):
        made = piece(given)
        kept, more = made[: len(made) - added], made[len(made) - added :]
        return jax.tree.map(jnp.add, sums, more), kept

    pieces = jax.tree.map(cut, arrays)
    shapes = jax.eval_shape(piece, jax.tree.map(lambda x: x[0], pieces))
    more = shapes[len(shapes) - added :]
    zeros = tuple(jnp.zeros(x.shape, x.dtype) for x in more)
    sums, kept = jax.lax.scan(step, zeros, pieces)
    join = lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], T, *x.shape[3:])  # noqa: E731
    return (*jax.tree.map(join, kept), *sums)

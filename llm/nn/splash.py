"""Splash attention, the fused Pallas kernel of a TPU: scores never leave the chip.

`llm/nn/attention.py` says where it runs. A kernel sees one device's rows and heads, so
it runs under `shard_map` on whatever mesh the program is laid out on.

What the backward pass needs of the forward one, the output and the log-normaliser, has
the name `context` for the rematerialisation policies of `llm/nn/stack.py`.

`B batch, T query, S key, N heads, K kv heads, H head dim`
"""

import math
import re

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

LANES = 128  # what rows of a TPU kernel are a multiple of
# Rows of a block: queries, keys, and keys on the way back. Larger ones read keys fewer
# times and skip less of the causal half; older chips have less fast memory for them.
BLOCKS = {
    r"tpu v6.*|tpu ?v?7x.*": (2048, 2048, 2048),
    r"tpu v4.*": (1024, 1024, 1024),
    r".*": (1024, 1024, 2048),
}
COMPUTED = 512  # keys of a block that are multiplied at once


def fits(rows: int, head_dim: int) -> bool:
    """Whether the kernel takes rows of this length and heads of this width."""
    return rows % LANES == 0 and head_dim % 64 == 0


def splash_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segments_BT: jax.Array,
    *,
    causal: bool,
    window: int = 0,
    softcap: float = 0.0,
    chip: str = "",
    interpret: bool = False,
) -> jax.Array:
    """Attends within segments; queries carry the scale of the scores already. BTNH.

    Args:
      window: keys that a query sees, itself among them; 0 is all.
      softcap: bounds the scores by c * tanh(x / c); 0 does not.
      chip: what jax calls the device, which decides the size of blocks.
      interpret: carries the kernel out in XLA, on any backend, for tests.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    B, T, N, _ = q_BTNH.shape
    batch, heads = _cut(B, N, k_BTKH.shape[2])

    def local(q_BNTH, k_BKTH, v_BKTH, segments_BT):
        own = q_BNTH.shape[1]
        attend = splash.make_splash_mha(
            splash.MultiHeadMask([_mask(splash, T, causal, window)] * own),
            block_sizes=_blocks(splash, T, chip),
            head_shards=1,
            q_seq_shards=1,
            attn_logits_soft_cap=softcap or None,
            residual_checkpoint_name="context",
            interpret=interpret,
        )

        def example(q_NTH, k_KTH, v_KTH, segments_T):
            ids = splash.SegmentIds(q=segments_T, kv=segments_T)
            q_NTH, k_KTH, v_KTH = (
                checkpoint_name(x, f"attention_{name}")
                for x, name in ((q_NTH, "q"), (k_KTH, "k"), (v_KTH, "v"))
            )
            return attend(q_NTH, k_KTH, v_KTH, segment_ids=ids)

        return jax.vmap(example)(q_BNTH, k_BKTH, v_BKTH, segments_BT)

    given = (*(x.swapaxes(1, 2) for x in (q_BTNH, k_BTKH, v_BTKH)), segments_BT)
    if not jax.sharding.get_abstract_mesh().empty:
        spec = PartitionSpec(batch, heads, None, None)
        local = jax.shard_map(
            local,
            in_specs=(spec, spec, spec, PartitionSpec(batch, None)),
            out_specs=spec,
            check_vma=False,
        )
    return local(*given).swapaxes(1, 2)


def _cut(B: int, N: int, K: int):
    """Mesh axes of the batch and of the heads, where they divide them."""
    mesh = jax.sharding.get_abstract_mesh()
    batch, heads, kv_heads = (
        nn.logical_to_mesh_axes((axis,))[0] for axis in ("batch", "heads", "kv_heads")
    )
    sizes = dict(mesh.shape) if not mesh.empty else {}

    def ways(axes):
        axes = (axes,) if isinstance(axes, str) else axes or ()
        return math.prod(sizes.get(a, 1) for a in axes)

    if heads != kv_heads or N % ways(heads) or K % ways(heads):
        heads = None
    return (batch if B % ways(batch) == 0 else None), heads


def _mask(splash, T: int, causal: bool, window: int):
    if window:
        return splash.LocalMask((T, T), (window - 1, 0 if causal else window - 1), 0)
    return splash.CausalMask((T, T)) if causal else splash.FullMask((T, T))


def _blocks(splash, T: int, chip: str):
    queries, keys, backward = next(
        sizes for kind, sizes in BLOCKS.items() if re.fullmatch(kind, chip.lower())
    )
    q, kv = (_dividing(T, size) for size in (queries, keys))
    compute = _dividing(kv, COMPUTED)
    return splash.BlockSizes(
        block_q=q, block_kv=kv, block_kv_compute=compute,
        block_q_dkv=q, block_kv_dkv=_dividing(T, backward),
        block_kv_dkv_compute=compute,
        use_fused_bwd_kernel=True,
    )  # fmt: skip


def _dividing(T: int, most: int) -> int:
    """The largest multiple of the lanes that divides T and is at most `most`."""
    return next(n for n in range(min(T, most), 0, -LANES) if T % n == 0)

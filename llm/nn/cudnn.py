"""cuDNN's flash attention on NVIDIA GPUs: scores never leave the chip.

`llm/nn/attention.py` says where it runs. Segments and windows are a mask of bytes, one
for all heads, which the kernel adds as a bias; what a causal row cannot see is skipped.

`B batch, T query, S key, N heads, K kv heads, H head dim`
"""

import re

import jax
import jax.numpy as jnp

from llm.precision import Policy

# NVIDIA's from Hopper on; the chips before take narrower heads.
_WIDE = re.compile(r".*\b(h100|h200|h800|gh200|b200|b300|gb200|gb300).*", re.IGNORECASE)


def lacks(policy: Policy, rows: int, head_dim: int) -> str:
    """Why the kernel does not take such rows on such a chip; '' where it does."""
    most = 256 if _WIDE.fullmatch(policy.chip) else 128
    if policy.platform != "gpu":
        return f"runs on NVIDIA GPUs, not on a {policy.platform}"
    if policy.operands not in (jnp.bfloat16, jnp.float16):
        return f"takes bfloat16, not {policy.dtype}"
    if head_dim % 8 or head_dim > most:
        return f"takes heads of a multiple of 8 up to {most}, not {head_dim}"
    return f"takes rows of an even length, not {rows}" if rows % 2 else ""


def cudnn_attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask_BTS: jax.Array,
    *,
    ordered: bool,
    implementation: str = "cudnn",
) -> jax.Array:
    """Attends where the mask lets; queries carry the scale of the scores. BTNH.

    Args:
      ordered: the mask hides all later keys, so that they need not be looked at.
      implementation: `xla` carries it out on any backend, for tests.
    """
    return jax.nn.dot_product_attention(
        q_BTNH, k_BSKH, v_BSKH, mask=mask_BTS[:, None], scale=1.0,
        is_causal=ordered, implementation=implementation,
    )  # fmt: skip

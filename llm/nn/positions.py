"""Positions as leaves: rotary, learned, sinusoidal, relative buckets, ALiBi.

Rotary embedding (arXiv:2104.09864) turns the pairs (i, i + H/2) of a head by position
times a frequency; tables of frequencies are made on the host in float64, so that a long
context loses nothing. How a table is stretched for longer contexts is `scaling`:

    ()                                             base**(-2i/H)
    ("linear", factor)                             arXiv:2306.15595
    ("llama3", factor, low, high, context)         arXiv:2407.21783
    ("yarn", factor, fast, slow, context, gain)    arXiv:2309.00071
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from llm.errors import InputError
from llm.precision import FLOAT32, Policy

SCALINGS = {"linear": 2, "llama3": 5, "yarn": 6}  # how long each is


def rope_frequencies(head_dim: int, base: float, scaling: tuple = ()) -> np.ndarray:
    """Radians a position for each pair of a head, [H/2] float32.

    Args:
      scaling: see the module docstring; `context` is the length of the first training.

    Raises:
      InputError: an unknown scaling.
    """
    half = head_dim // 2
    plain_H = base ** (-np.arange(half, dtype=np.float64) / half)
    if not scaling:
        return plain_H.astype(np.float32)
    kind, *numbers = scaling
    if SCALINGS.get(kind) != len(scaling):
        raise InputError(
            got=f"rope_scaling {scaling!r}",
            want=" or ".join(f"{k} and {n - 1} numbers" for k, n in SCALINGS.items()),
        )
    if kind == "linear":
        stretched_H = plain_H / numbers[0]
    elif kind == "llama3":
        stretched_H = _llama3(plain_H, *numbers)
    else:
        stretched_H = _yarn(plain_H, base, *numbers[:4])
    return stretched_H.astype(np.float32)


def rope_gain(scaling: tuple) -> float:
    """What YaRN multiplies the rotated queries and keys by; 1 for the others."""
    return scaling[5] if scaling and scaling[0] == "yarn" else 1.0


def _llama3(plain_H, factor, low, high, context):
    # Long waves are stretched, short ones kept, those between are blended.
    waves_in_context_H = context * plain_H / (2 * math.pi)
    blend_H = np.clip((waves_in_context_H - low) / (high - low), 0, 1)
    return (1 - blend_H) * plain_H / factor + blend_H * plain_H


def _yarn(plain_H, base, factor, fast, slow, context):
    half = len(plain_H)

    def pair_that_turns(times):
        return half * math.log(context / (times * 2 * math.pi)) / math.log(base)

    first = max(math.floor(pair_that_turns(fast)), 0)
    last = min(math.ceil(pair_that_turns(slow)), 2 * half - 1)
    last = last + 0.001 if first == last else last
    stretch_H = np.clip((np.arange(half) - first) / (last - first), 0, 1)
    return (1 - stretch_H) * plain_H + stretch_H * plain_H / factor


def rope(
    x_BTNH: jax.Array,
    positions_BT: jax.Array,
    frequency_H: jax.Array,
    gain: float = 1.0,
    policy: Policy = FLOAT32,
) -> jax.Array:
    """Rotates the pairs (i, i + H/2) of every head by position * frequency."""
    if policy.platform == "tpu":
        return _rope_by_product(x_BTNH, positions_BT, frequency_H, gain)
    angle_BTH = positions_BT.astype(jnp.float32)[..., None] * frequency_H[None, None]
    cos_BT1H = gain * jnp.cos(angle_BTH)[:, :, None, :]
    sin_BT1H = gain * jnp.sin(angle_BTH)[:, :, None, :]
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    rotated = (
        first * cos_BT1H - second * sin_BT1H,
        second * cos_BT1H + first * sin_BT1H,
    )
    return jnp.concatenate(rotated, axis=-1).astype(x_BTNH.dtype)


def rope_of(
    cfg: Any, positions_BT: jax.Array, policy: Policy = FLOAT32
) -> Callable[[jax.Array], jax.Array]:
    """From queries or keys to those of their positions, by a config's rope."""
    return functools.partial(
        rope,
        positions_BT=positions_BT,
        frequency_H=rope_frequencies(cfg.head_dim, cfg.rope_base, cfg.rope_scaling),
        gain=rope_gain(cfg.rope_scaling),
        policy=policy,
    )


def _rope_by_product(x_BTNH, positions_BT, frequency_H, gain):
    """As `rope`: the halves change places by an exact product with 0, 1 and -1.

    Half a head is half a row of a TPU's registers; cutting and joining them takes
    longer than the product, which the matrix unit does in passing.
    """
    half = len(frequency_H)
    twice_H = jnp.concatenate([frequency_H, frequency_H])
    angle_BTH = positions_BT.astype(jnp.float32)[..., None] * twice_H[None, None]
    angle_BT1H = angle_BTH[:, :, None]
    one, none = np.eye(half), np.zeros((half, half))
    swap_HH = jnp.asarray(np.block([[none, one], [-one, none]]), x_BTNH.dtype)
    swapped_BTNH = jnp.einsum("BTNH,HI->BTNI", x_BTNH, swap_HH)
    turned = x_BTNH.astype(jnp.float32) * (gain * jnp.cos(angle_BT1H))
    turned += swapped_BTNH.astype(jnp.float32) * (gain * jnp.sin(angle_BT1H))
    return turned.astype(x_BTNH.dtype)


class Learned(nn.Module):
    """A vector for every position up to `length`, which it refuses to exceed."""

    length: int
    width: int
    scale: float = 0.02

    @nn.compact
    def __call__(self, positions_BT: jax.Array) -> jax.Array:
        init = nn.with_logical_partitioning(
            nn.initializers.normal(self.scale), ("positions", "embed")
        )
        shape = (self.length, self.width)
        table_SD = self.param("embedding", init, shape, jnp.float32)
        return jnp.take(table_SD, positions_BT, axis=0, mode="clip")


def sinusoidal(positions_BT: jax.Array, width: int) -> jax.Array:
    """Sines, then cosines, of geometric frequencies (arXiv:1706.03762), BTD."""
    half = width // 2
    frequency_D = 10_000.0 ** (-np.arange(half) / max(half - 1, 1))
    frequency_11D = frequency_D.astype(np.float32)[None, None]
    angle_BTD = positions_BT.astype(jnp.float32)[..., None] * frequency_11D
    return jnp.concatenate([jnp.sin(angle_BTD), jnp.cos(angle_BTD)], axis=-1)


def relative_buckets(
    ahead_BTS: jax.Array, buckets: int, farthest: int, both_ways: bool
) -> jax.Array:
    """T5's bucket of each distance query - key (arXiv:1910.10683): near ones exact.

    Args:
      both_ways: half of the buckets are for keys after the query; else those share the
        bucket of distance 0.
    """
    first_BTS = jnp.zeros_like(ahead_BTS)
    if both_ways:
        buckets //= 2
        first_BTS = jnp.where(ahead_BTS < 0, buckets, 0)
        far_BTS = jnp.abs(ahead_BTS)
    else:
        far_BTS = jnp.maximum(ahead_BTS, 0)
    exact = buckets // 2
    log_BTS = jnp.log(jnp.maximum(far_BTS, 1).astype(jnp.float32) / exact)
    coarse_BTS = exact + (
        log_BTS / math.log(farthest / exact) * (buckets - exact)
    ).astype(jnp.int32)
    coarse_BTS = jnp.minimum(coarse_BTS, buckets - 1)
    return first_BTS + jnp.where(far_BTS < exact, far_BTS, coarse_BTS)


def alibi_slopes(heads: int) -> np.ndarray:
    """[N]: what each head subtracts from a score a position of distance (2108.12409).

    A geometric series; for heads that are no power of two, as its authors interleave.
    """

    def series(count):
        return 2.0 ** (-8.0 * np.arange(1, count + 1) / count)

    power = 2 ** math.floor(math.log2(heads))
    more = series(2 * power)[::2][: heads - power]
    return np.concatenate([series(power), more]).astype(np.float32)


def alibi(heads: int, positions_BT: jax.Array, positions_BS: jax.Array) -> jax.Array:
    """What ALiBi adds to the scores of queries and keys, BNTS."""
    ahead_BTS = positions_BT[:, :, None] - positions_BS[:, None, :]
    slopes_1N11 = alibi_slopes(heads)[None, :, None, None]
    return -slopes_1N11 * ahead_BTS[:, None].astype(jnp.float32)

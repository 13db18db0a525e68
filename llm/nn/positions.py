"""Positions as leaves. Rotary embedding (arXiv:2104.09864): angles in float32."""

import jax
import jax.numpy as jnp


def rope(x_BTNH: jax.Array, positions_BT: jax.Array, base: float) -> jax.Array:
    """Rotates the pairs (i, i + H/2) of every head by position * base**(-2i/H)."""
    half = x_BTNH.shape[-1] // 2
    inverse_H = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_BTH = positions_BT.astype(jnp.float32)[..., None] * inverse_H[None, None, :]
    cos_BT1H = jnp.cos(angle_BTH)[:, :, None, :]
    sin_BT1H = jnp.sin(angle_BTH)[:, :, None, :]
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    rotated = (
        first * cos_BT1H - second * sin_BT1H,
        second * cos_BT1H + first * sin_BT1H,
    )
    return jnp.concatenate(rotated, axis=-1).astype(x_BTNH.dtype)

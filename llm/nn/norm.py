"""Norms of the last axis, float32 inside: RMSNorm (arXiv:1910.07467), LayerNorm."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name


class RMSNorm(nn.Module):
    """Divides by the root mean square of the last axis and scales."""

    epsilon: float = 1e-6
    axis: str = "norm"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        ones = nn.with_logical_partitioning(nn.initializers.ones_init(), (self.axis,))
        scale = self.param("scale", ones, (x.shape[-1],), jnp.float32)
        normal = _normal(x, self.epsilon)
        return (normal * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class OffsetRMSNorm(nn.Module):
    """RMSNorm that scales by 1 + scale, as Gemma does; it starts at 1."""

    epsilon: float = 1e-6
    axis: str = "norm"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), (self.axis,))
        scale = self.param("scale", zeros, (x.shape[-1],), jnp.float32)
        normal = _normal(x, self.epsilon)
        whole = 1 + scale.reshape((1,) * (x.ndim - 1) + (-1,))
        return (normal * whole).astype(x.dtype)


class LayerNorm(nn.Module):
    """Subtracts the mean, divides by the standard deviation, scales and shifts."""

    epsilon: float = 1e-5
    axis: str = "norm"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def parameter(name, init):
            boxed = nn.with_logical_partitioning(init, (self.axis,))
            value = self.param(name, boxed, (x.shape[-1],), jnp.float32)
            return value.reshape((1,) * (x.ndim - 1) + (-1,))

        scale = parameter("scale", nn.initializers.ones_init())
        bias = parameter("bias", nn.initializers.zeros_init())
        wide = x.astype(jnp.float32)
        wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        normal = wide * jax.lax.rsqrt(variance + self.epsilon)
        return (normal * scale + bias).astype(x.dtype)


def _normal(x: jax.Array, epsilon: float) -> jax.Array:
    """Of root mean square 1 over the last axis, float32."""
    wide = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    # One number a token, for which a pass over the tokens need not be repeated.
    return wide * checkpoint_name(jax.lax.rsqrt(mean_square + epsilon), "norm")

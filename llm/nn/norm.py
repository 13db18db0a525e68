"""Root-mean-square norm (arXiv:1910.07467): no mean, no bias, float32 inside."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class RMSNorm(nn.Module):
    """Divides by the root mean square of the last axis and scales."""

    epsilon: float = 1e-6
    axis: str = "norm"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        ones = nn.with_logical_partitioning(nn.initializers.ones_init(), (self.axis,))
        scale = self.param("scale", ones, (x.shape[-1],), jnp.float32)
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        normal = wide * jax.lax.rsqrt(mean_square + self.epsilon)
        return (normal * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)

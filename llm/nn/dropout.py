"""Dropout whose mask of an example depends on that example alone.

Keys are folded from each example's global index in the batch, so that cutting a batch
into micro-batches or over devices changes nothing.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dropout(nn.Module):
    """Zeroes a share `rate` of the elements and scales the others up; off without keys.

    The stream `dropout` of Linen rngs supplies the key; `index_B` is the global index
    of each example in the batch.
    """

    rate: float

    @nn.compact
    def __call__(self, x_BTD: jax.Array, index_B: jax.Array, train: bool) -> jax.Array:
        if not train or self.rate == 0:
            return x_BTD
        # Of this module's place alone: `make_rng` also counts how often it was traced.
        key = self.scope.rngs["dropout"].as_jax_rng()
        keys_B = jax.vmap(lambda i: jax.random.fold_in(key, i))(index_B)
        keep = 1 - self.rate
        kept_BTD = jax.vmap(lambda k: jax.random.bernoulli(k, keep, x_BTD.shape[1:]))(
            keys_B
        )
        return jnp.where(kept_BTD, x_BTD / keep, 0).astype(x_BTD.dtype)

"""Token embedding: a table of vectors, float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.precision import Policy, Weight


def padded_vocab(size: int, multiple: int = 128) -> int:
    """The vocabulary rounded up, so that every mesh divides it and tiles are whole."""
    return -(-size // multiple) * multiple


class Embed(nn.Module):
    """Looks tokens up in a [vocab, width] table.

    Attributes:
      scale: standard deviation of the initial vectors.
    """

    vocab_size: int
    width: int
    policy: Policy
    scale: float = 1.0

    def setup(self):
        init = nn.with_logical_partitioning(
            nn.initializers.normal(self.scale), ("vocab", "embed")
        )
        shape = (self.vocab_size, self.width)
        self.embedding = self.param("embedding", init, shape, jnp.float32)

    def __call__(self, tokens_BT: jax.Array) -> jax.Array:
        if isinstance(self.embedding, Weight):
            x_BTD = self.embedding.take(tokens_BT)
        else:
            x_BTD = jnp.take(self.embedding, tokens_BT, axis=0, mode="clip")
        return x_BTD.astype(self.policy.activations)

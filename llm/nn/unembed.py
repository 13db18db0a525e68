"""The projection from hidden states to the vocabulary.

It starts at zero, so that the first loss is the logarithm of the vocabulary whatever
the rest of the network does. The kernel is exposed: losses take it in pieces.
"""

import flax.linen as nn
import jax.numpy as jnp

from llm.precision import Policy


class Unembed(nn.Module):
    """A [width, vocab] kernel."""

    width: int
    vocab_size: int
    policy: Policy

    def setup(self):
        init = nn.with_logical_partitioning(
            nn.initializers.zeros_init(), ("embed", "vocab")
        )
        shape = (self.width, self.vocab_size)
        self.kernel = self.param("kernel", init, shape, jnp.float32)

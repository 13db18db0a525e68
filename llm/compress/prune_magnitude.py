"""The smallest weights of each matrix become zero (Han et al., arXiv:1506.02626).

A matrix loses the same share in every layer. As stored here it is as large as before:
what is gained is for hardware and formats that skip zeros, and what it costs is
measured.
"""

import jax.numpy as jnp

from llm import tree
from llm.compress import OUTPUT, Compression, inputs_of
from llm.knobs import ShareBelow1

TINY = {"share": 0.5}


def make(*, share: ShareBelow1 = 0.5) -> Compression:
    """Pruning by magnitude.

    Args:
      share: of the weights of a matrix that become zero.
    """

    def apply(params, axes):
        def pruned(name, x):
            layers, inputs = inputs_of(name, axes[name])
            if not inputs or axes[name] == OUTPUT:
                return x
            flat = x.reshape(x.shape[0] if layers else 1, -1)
            gone = int(share * flat.shape[1])
            order = jnp.argsort(jnp.abs(flat), axis=1)
            rank = jnp.argsort(order, axis=1)
            return jnp.where(rank < gone, 0, flat).reshape(x.shape)

        return tree.map_named(pruned, params)

    return Compression(apply)

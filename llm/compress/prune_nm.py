"""Of every M weights along the inputs, the N largest stay: 2:4 and the like.

The pattern that sparse tensor cores skip (arXiv:2104.08378). Groups run along the
inputs of a kernel, for each output.
"""

import math

import jax.numpy as jnp

from llm import tree
from llm.compress import OUTPUT, Compression, inputs_of
from llm.errors import InputError
from llm.knobs import Positive

TINY = {}


def make(*, keep: Positive = 2, of: Positive = 4) -> Compression:
    """N:M pruning.

    Args:
      keep, of: N and M.

    Raises:
      InputError: more than all are kept.
    """
    if keep > of:
        raise InputError(got=f"keep {keep} of {of}", want="at most all")

    def apply(params, axes):
        def pruned(name, x):
            layers, inputs = inputs_of(name, axes[name])
            K = math.prod(x.shape[layers : layers + inputs])
            if not inputs or axes[name] == OUTPUT or K % of:
                return x
            groups = x.reshape(*x.shape[:layers], K // of, of, -1)
            order = jnp.argsort(-jnp.abs(groups), axis=-2)
            rank = jnp.argsort(order, axis=-2)
            return jnp.where(rank < keep, groups, 0).reshape(x.shape)

        return tree.map_named(pruned, params)

    return Compression(apply)

"""Weights in eight bits: a scale for each output of a kernel, each row of a table.

Four times smaller than float32, and decoding waits for a quarter of the bytes; what a
model says changes little (LOG.md).
"""

import jax

from llm import tree
from llm.compress import Compression, inputs_of, is_table
from llm.nn import quantized

TINY = {}


def make(*, group: int = 0, embedding: bool = True) -> Compression:
    """Eight bits.

    Args:
      group: inputs that share a scale; 0 is all of a kernel.
      embedding: whether the table of tokens is compressed, too.
    """

    def apply(params, axes):
        def smaller(name, x):
            layers, inputs = inputs_of(name, axes[name])
            if inputs:
                one = lambda k: quantized.quantize_kernel(  # noqa: E731
                    k, inputs, bits="int8", group=group
                )
                return jax.vmap(one)(x) if layers else one(x)
            if embedding and is_table(name, axes[name]):
                return quantized.quantize_table(x, bits="int8", group=group)
            return x

        return tree.map_named(smaller, params)

    return Compression(apply)

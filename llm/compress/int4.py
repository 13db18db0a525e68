"""Weights in four bits, in groups of inputs that share a scale.

A group is small, so that one large weight spoils few others; the scale of each is the
one of many that makes the squared error smallest, weighed by the inputs of the kernel
where they are known. The table of tokens, which is the
output, too, where it is tied, suffers most and stays at eight bits.
"""

import jax

from llm import tree
from llm.compress import OUTPUT, Compression, inputs_of, is_table
from llm.nn import quantized

TINY = {"group": 8}


def make(*, group: int = 32) -> Compression:
    """Four bits.

    Args:
      group: inputs that share a scale; 0 is all of a kernel.
    """

    def apply(params, axes, squares=None):
        def smaller(name, x):
            layers, inputs = inputs_of(name, axes[name])
            output = axes[name] == OUTPUT
            kind = {"bits": "int8"} if output else {"bits": "int4", "group": group}
            if inputs:
                # Experts and what no text went through have no squares: all weigh 1.
                known = (squares or {}).get(name)
                one = lambda k, s: quantized.quantize_kernel(  # noqa: E731
                    k, inputs, squares_K=s, **kind
                )
                return jax.vmap(one)(x, known) if layers else one(x, known)
            if is_table(name, axes[name]):
                return quantized.quantize_table(x, bits="int8")
            return x

        return tree.map_named(smaller, params)

    return Compression(apply, calibrated=True)

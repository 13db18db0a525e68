"""A kernel with named axes, multiplied by the one einsum; a bias where asked for."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from llm.nn.weights import einsum
from llm.precision import Policy


class Dense(nn.Module):
    """`einsum(spec, x, kernel) + bias`.

    Attributes:
      spec: contraction as in `llm.nn.weights.einsum`.
      shape: of the kernel, with its logical `axes`.
      scale: standard deviation of the initial kernel in units of 1/sqrt(fan-in); 0
        makes a branch of a residual network start as the identity.
      bias: whether there is one, of the axes of the result.
    """

    spec: str
    shape: Sequence[int]
    axes: Sequence[str]
    policy: Policy
    scale: float = 1.0
    bias: bool = False

    @nn.compact
    def __call__(self, x: Any, product: Callable = einsum) -> jax.Array:
        """The product; another than `einsum` says itself what `x` may be."""
        inputs, kernel = self.spec.partition("->")[0].split(",")
        contracted = len(set(inputs) & set(kernel))
        fan_in = math.prod(self.shape[:contracted])
        init = nn.with_logical_partitioning(
            nn.initializers.normal(self.scale * fan_in**-0.5), tuple(self.axes)
        )
        value = self.param("kernel", init, tuple(self.shape), jnp.float32)
        # The name is for what is kept of a layer (llm/nn/stack.py).
        y = checkpoint_name(product(self.spec, x, value, self.policy), str(self.name))
        if not self.bias:
            return y
        zeros = nn.with_logical_partitioning(
            nn.initializers.zeros_init(), tuple(self.axes[contracted:])
        )
        bias = self.param("bias", zeros, tuple(self.shape[contracted:]), jnp.float32)
        return y + bias.astype(y.dtype).reshape(
            (1,) * (y.ndim - bias.ndim) + bias.shape
        )

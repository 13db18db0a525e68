"""What goes into a model and what comes out of it.

`B batch, T query, D width, V vocab`

A model is a Linen module with

    __call__(inputs, cache=None, train=False) -> Output     hidden states, never logits
    unembed(hidden_BTD) -> logits_BTV                       float32
    init_cache(params, batch, length) -> cache              see nn/cache.py
    KIND                                                    'causal'; a module constant
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Inputs(NamedTuple):
    """A batch of token rows.

    Attributes:
      tokens_BT: token ids.
      positions_BT: position of each token in its own document or request.
      segments_BT: which document of the row a token belongs to; 0 is padding. Attention
        never crosses segments.
      index_B: global index of each example in its batch: dropout keys are folded from
        it, so that micro-batches and meshes do not change them.
    """

    tokens_BT: jax.Array
    positions_BT: jax.Array
    segments_BT: jax.Array
    index_B: jax.Array


class Output(NamedTuple):
    """Final hidden states (after the last norm) and the cache as it is now."""

    hidden_BTD: jax.Array
    cache: Any


def plain_inputs(tokens_BT: jax.Array) -> Inputs:
    """Inputs of rows that hold one document each, without padding."""
    B, T = tokens_BT.shape
    positions_BT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
    ones_BT = jnp.ones((B, T), jnp.int32)
    return Inputs(tokens_BT, positions_BT, ones_BT, jnp.arange(B, dtype=jnp.int32))


def with_head(model: nn.Module) -> Callable[..., tuple[Output, jax.Array]]:
    """`apply(params, inputs, train=False, rngs=None)` -> (Output, unembed_DV).

    Losses take the output projection with the hidden states, so that the logits of a
    whole batch need never exist.
    """

    def apply(params, inputs, train=False, rngs=None):
        def both(m):
            return m(inputs, train=train), m.unembed_weight()

        return model.apply({"params": params}, method=both, rngs=rngs)

    return apply

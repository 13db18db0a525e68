"""What goes into a model and what comes out of it.

`B batch, T query, D width, V vocab`

A model is a Linen module, a `Model` of llm/nn/model.py, with

    __call__(inputs, cache=None, train=False, capture=()) -> Output   never logits
    head(hidden_BTD) -> Head                what makes logits of the hidden states; None
                                            of an encoder that only reads
    init_cache(batch, length) -> cache      see nn/cache.py; where `generates`; also
                                            given the source's length if it has one
    encode(source)                          where `reads_source`: of an encoder-decoder,
                                            which calls it itself
    cfg, policy                             what may be asked of it, and its precision
    KIND                                    'causal', 'masked' or 'encdec', of the file
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.losses import Head


class Inputs(NamedTuple):
    """A batch of token rows.

    Attributes:
      tokens_BT: token ids.
      positions_BT: position of each token in its own document or request.
      segments_BT: which document of the row a token belongs to; 0 is padding. Attention
        never crosses segments.
      index_B: global index of each example in its batch: dropout keys are folded from
        it, so that micro-batches and meshes do not change them.
      prefix_BT: True where a token may be attended to from before it (prefix language
        models); None is nowhere.
      types_BT: which of two texts a token belongs to (BERT); None is the first.
      source: what an encoder reads; None for models without one, and where a cache
        holds it already.
      load_LE: the share of each expert of each layer in the assignments of the whole
        batch, of which these rows are a part; None is that of these rows alone.
    """

    tokens_BT: jax.Array
    positions_BT: jax.Array
    segments_BT: jax.Array
    index_B: jax.Array
    prefix_BT: jax.Array | None = None
    types_BT: jax.Array | None = None
    source: "Inputs | None" = None
    load_LE: jax.Array | None = None


class Output(NamedTuple):
    """What a model made of its inputs.

    Attributes:
      hidden_BTD: final hidden states, after the last norm.
      cache: what is to be inserted in the cache that was given; None without one.
      sums: {name: (sum, weight)} of the model's own losses and figures, and
        `expert_load` ([L, E], tokens), of which `Inputs.load_LE` is made.
      seen: what was asked for by `capture`: `attention` (LBNTS, shares that sum to 1)
        and `residual` (LBTD, the stream after every layer).
    """

    hidden_BTD: jax.Array
    cache: Any
    sums: dict[str, Any] = {}
    seen: dict[str, jax.Array] = {}


def reads_source(model: nn.Module) -> bool:
    """Whether a model is an encoder-decoder."""
    return model.reads_source


def plain_inputs(tokens_BT: jax.Array) -> Inputs:
    """Inputs of rows that hold one document each, without padding."""
    B, T = tokens_BT.shape
    positions_BT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
    ones_BT = jnp.ones((B, T), jnp.int32)
    return Inputs(tokens_BT, positions_BT, ones_BT, jnp.arange(B, dtype=jnp.int32))


def inputs_of(batch: dict[str, jax.Array], part: str = "") -> Inputs:
    """Inputs of what an objective made; `part` is what their names begin with."""
    names = ("tokens", "positions", "segments")
    rows = (batch[part + name] for name in names)
    return Inputs(*rows, batch["index"], load_LE=batch.get("expert_load"))


def has_head(model: nn.Module) -> bool:
    """Whether a model predicts tokens; some encoders only read."""
    return model.cfg.mlm_head


def with_head(model: nn.Module) -> Callable[..., tuple[Output, Head | None]]:
    """`apply(params, inputs, train=False, rngs=None)` -> (Output, Head).

    Losses take the head apart from its logits, so that those of a whole batch need
    never exist.
    """

    def apply(params, inputs, train=False, rngs=None):
        return model.apply(
            {"params": params}, inputs, train=train, method=both, rngs=rngs
        )

    return apply


def both(model: nn.Module, inputs: Inputs, train: bool = False):
    """A method for `model.apply`: the Output, and the Head of its hidden states."""
    output = model(inputs, train=train)
    return output, model.head(output.hidden_BTD)

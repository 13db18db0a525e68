"""GRU: a stack of recurrent layers, the baseline that attention is measured by.

arXiv:1406.1078, with the reset gate after the product, as cuDNN has it.
`llm/nn/rnn.py` has the rest of it.

`B batch, D width, F gates * D`
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.nn.model import maker
from llm.nn.rnn import Cell, Config, RecurrentModel, State, dialect

KIND = "causal"
TINY = {"layers": 2, "width": 64}


def _step(state: State, given_BF: jax.Array, held_BF: jax.Array) -> State:
    """(hidden,) from the one before; reset, keep and new gate in turn."""
    (hidden_BD,) = state
    given, held = jnp.split(given_BF, 3, axis=-1), jnp.split(held_BF, 3, axis=-1)
    reset = nn.sigmoid(given[0] + held[0])
    keep = nn.sigmoid(given[1] + held[1])
    new = jnp.tanh(given[2] + reset * held[2])
    return ((1 - keep) * new + keep * hidden_BD,)


CELL = Cell(_step, gates=3, states=1)


class GRU(RecurrentModel):
    """A GRU; see `RecurrentModel`."""

    cell = CELL


make = maker(GRU, Config)
# Hugging Face has no such model.
HF = dialect("gru")

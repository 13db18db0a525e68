"""LSTM: a stack of recurrent layers, the baseline that attention is measured by.

Hochreiter and Schmidhuber 1997; as a language model, arXiv:1409.2329.
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
    """(hidden, cell) from those before; input, forget, new and output gate in turn."""
    _, cell_BD = state
    enter, forget, new, leave = jnp.split(given_BF + held_BF, 4, axis=-1)
    cell_BD = nn.sigmoid(forget) * cell_BD + nn.sigmoid(enter) * jnp.tanh(new)
    return nn.sigmoid(leave) * jnp.tanh(cell_BD), cell_BD


def _forget_little(key, shape, dtype):
    """Zeros, but ones for the forget gate (Jozefowicz et al. 2015)."""
    del key
    D = shape[-1] // 4
    return jnp.zeros(shape, dtype).at[..., D : 2 * D].set(1.0)


CELL = Cell(_step, gates=4, states=2, bias_init=_forget_little)


class LSTM(RecurrentModel):
    """An LSTM; see `RecurrentModel`."""

    cell = CELL


make = maker(LSTM, Config)
# Hugging Face has no such model.
HF = dialect("lstm")

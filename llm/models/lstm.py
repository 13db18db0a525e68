"""LSTM: a stack of recurrent layers, the baseline that attention is measured by.

Hochreiter and Schmidhuber 1997; as a language model, arXiv:1409.2329.
Embedding, `layers` layers of `width`, head; dropout between them. The cache is the
state of every layer, whatever the length of the text.

`B batch, T time, D width, V vocab, L layers`
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.losses import Head
from llm.nn.cache import Carry
from llm.nn.contract import Inputs, Output
from llm.nn.dropout import Dropout
from llm.nn.embedding import Embed
from llm.nn.rnn import Block, Cell, State, dialect
from llm.nn.stack import Stack, check_stack
from llm.nn.unembed import Unembed
from llm.precision import FLOAT32, Policy

KIND = "causal"
TINY = {"layers": 2, "width": 64}


def make(
    *,
    vocab_size: int,
    layers: int = 2,
    width: int = 512,
    tied: bool = False,
    dropout: float = 0.0,
    how: str = "scan",
    remat: str = "none",
    policy: Policy = FLOAT32,
) -> "LSTM":
    """An LSTM; `how` and `remat` are choices of `llm/nn/stack.py`."""
    check_stack(layers, how, remat)
    return LSTM(
        vocab_size=vocab_size,
        layers=layers,
        width=width,
        tied=tied,
        dropout=dropout,
        how=how,
        remat=remat,
        policy=policy,
    )


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


class LSTM(nn.Module):
    """See `make`. The parameters are float32."""

    vocab_size: int
    layers: int
    width: int
    tied: bool
    dropout: float
    how: str
    remat: str
    policy: Policy

    def setup(self):
        # As large as the states that it feeds, which the gates keep below one.
        self.embed = Embed(self.vocab_size, self.width, self.policy, scale=1.0)
        self.embed_dropout = Dropout(self.dropout)
        block = {"cell": CELL, "dropout": self.dropout, "policy": self.policy}
        self.stack = Stack(Block, self.layers, block, self.how, self.remat)
        if not self.tied:
            self.unembed = Unembed(
                self.width, self.vocab_size, self.policy, name="head"
            )

    def __call__(
        self,
        inputs: Inputs,
        cache: Any = None,
        train: bool = False,
        capture: tuple[str, ...] = (),
    ):
        """Hidden states of a batch, and the states of all layers after it."""
        x_BTD = self.embed(inputs.tokens_BT)
        x_BTD = self.embed_dropout(x_BTD, inputs.index_B, train)
        x_BTD, cache, seen = self.stack(x_BTD, cache, None, inputs, train, capture)
        if self.is_initializing():
            self.head(x_BTD)
        return Output(x_BTD, cache, seen=seen)

    def head(self, hidden_BTD: jax.Array) -> Head:
        """What makes logits of the hidden states."""
        kernel_DV = self.embed.embedding.T if self.tied else self.unembed.kernel
        return Head(hidden_BTD, kernel_DV)

    def init_cache(self, batch: int, length: int) -> Carry:
        """The states of `batch` rows before their texts; of any `length`."""
        del length
        return Carry(CELL.start(self.layers, batch, self.width))


# Hugging Face has no such model.
HF = dialect("lstm")

"""GRU: a stack of recurrent layers, the baseline that attention is measured by.

arXiv:1406.1078, with the reset gate after the product, as cuDNN has it.
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
) -> "GRU":
    """A GRU; `how` and `remat` are choices of `llm/nn/stack.py`."""
    check_stack(layers, how, remat)
    return GRU(
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
    """(hidden,) from the one before; reset, keep and new gate in turn."""
    (hidden_BD,) = state
    given, held = jnp.split(given_BF, 3, axis=-1), jnp.split(held_BF, 3, axis=-1)
    reset = nn.sigmoid(given[0] + held[0])
    keep = nn.sigmoid(given[1] + held[1])
    new = jnp.tanh(given[2] + reset * held[2])
    return ((1 - keep) * new + keep * hidden_BD,)


CELL = Cell(_step, gates=3, states=1)


class GRU(nn.Module):
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
HF = dialect("gru")

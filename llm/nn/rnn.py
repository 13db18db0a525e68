"""Recurrent layers of any cell; `llm/models/lstm.py` and `gru.py` have their own.

What depends on the input alone is one product for all times; only the product
with the state is taken step by step. A state starts at zero where a text begins (its
position is 0), and stands still at padding. Names and axes are those of `torch.nn`, so
that weights go both ways.

`B batch, T time, D width, F gates * D`
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.nn.cache import Carry
from llm.nn.contract import Inputs
from llm.nn.dropout import Dropout
from llm.nn.hf_names import Dialect, Tensor
from llm.nn.weights import einsum
from llm.precision import Policy

State = tuple[jax.Array, ...]


class Cell(NamedTuple):
    """What tells one recurrent layer from another.

    Attributes:
      step: the state after a token, from the state before (its hidden part first), what
        the gates get of the input and what they get of the state, both float32.
      gates: how many it has.
      states: how many arrays its state is.
      bias_init: of the input's bias.
    """

    step: Callable[[State, jax.Array, jax.Array], State]
    gates: int
    states: int
    bias_init: Callable = nn.initializers.zeros_init()

    def start(self, *shape: int) -> State:
        """The state before a text; `shape` ends with batch and width."""
        return (jnp.zeros(shape, jnp.float32),) * self.states


class Weights(nn.Module):
    """A kernel and a bias for all gates."""

    width: int
    gates: int
    bias_init: Callable = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        D, F = self.width, self.gates * self.width
        normal = nn.initializers.normal(D**-0.5)
        kernel = nn.with_logical_partitioning(normal, ("embed", "mlp"))
        bias = nn.with_logical_partitioning(self.bias_init, ("mlp",))
        return (
            self.param("kernel", kernel, (D, F), jnp.float32),
            self.param("bias", bias, (F,), jnp.float32),
        )


class Recurrent(nn.Module):
    """A layer of one cell over all times."""

    cell: Cell
    policy: Policy

    @nn.compact
    def __call__(
        self, x_BTD: jax.Array, state: State | None, inputs: Inputs
    ) -> tuple[jax.Array, State]:
        B, _, D = x_BTD.shape
        gates, bias_init = self.cell.gates, self.cell.bias_init
        kernel_DF, bias_F = Weights(D, gates, bias_init, name="input")()
        given_BTF = einsum("BTD,DF->BTF", x_BTD, kernel_DF, self.policy)
        given_BTF = given_BTF + bias_F.astype(given_BTF.dtype)[None, None]
        kernel_DF, bias_F = Weights(D, gates, name="recurrent")()
        if state is None:
            state = self.cell.start(B, D)
        begins_BT = (inputs.positions_BT == 0) & (inputs.segments_BT > 0)
        stands_BT = inputs.segments_BT == 0

        def step(state, now):
            given_BF, begins_B, stands_B = now
            held = tuple(jnp.where(begins_B[:, None], 0.0, s) for s in state)
            hidden_BD = held[0].astype(self.policy.activations)
            held_BF = einsum("BD,DF->BF", hidden_BD, kernel_DF, self.policy)
            held_BF = held_BF.astype(jnp.float32) + bias_F[None]
            new = self.cell.step(held, given_BF.astype(jnp.float32), held_BF)
            pairs = zip(state, new, strict=True)
            state = tuple(jnp.where(stands_B[:, None], s, n) for s, n in pairs)
            return state, state[0]

        by_time = jax.tree.map(
            lambda x: x.swapaxes(0, 1), (given_BTF, begins_BT, stands_BT)
        )
        state, hidden_TBD = jax.lax.scan(step, state, by_time)
        return hidden_TBD.swapaxes(0, 1).astype(x_BTD.dtype), state


class Block(nn.Module):
    """A recurrent layer and dropout."""

    cell: Cell
    dropout: float
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, each, inputs: Inputs, train: bool, capture=()):
        del each
        x_BTD = nn.with_logical_constraint(x_BTD, ("batch", "length", "width"))
        layer = Recurrent(self.cell, self.policy, name="recurrent")
        x_BTD, state = layer(x_BTD, None if cache is None else cache.states, inputs)
        noted = {"residual": x_BTD} if "residual" in capture else {}
        x_BTD = Dropout(self.dropout)(x_BTD, inputs.index_B, train)
        return x_BTD, None if cache is None else Carry(state), noted


def _knobs(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "vocab_size": config["vocab_size"],
        "layers": config["num_layers"],
        "width": config["hidden_size"],
        "tied": config["tie_word_embeddings"],
    }


def _config(knobs: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "num_layers": knobs["layers"],
        "hidden_size": knobs["width"],
        "tie_word_embeddings": knobs["tied"],
    }


def _tensors(knobs: dict[str, Any]) -> tuple[Tensor, ...]:
    table = [Tensor("embed/embedding", "embed.weight", "vd -> vd")]
    for part, its in (("input", "ih"), ("recurrent", "hh")):
        mine = f"stack/layer/recurrent/{part}"
        theirs = f"rnn.{{kind}}_{its}_l{{{{layer}}}}"
        kernel, bias = theirs.format(kind="weight"), theirs.format(kind="bias")
        table.append(Tensor(f"{mine}/kernel", kernel, "fd -> df"))
        table.append(Tensor(f"{mine}/bias", bias, "f -> f"))
    if not knobs["tied"]:
        table.append(Tensor("head/kernel", "head.weight", "vd -> dv"))
    return tuple(table)


def dialect(model_type: str) -> Dialect:
    """The names of torch.nn's Embedding, recurrence and Linear."""

    def config(knobs, vocab_size):
        return {"model_type": model_type} | _config(knobs, vocab_size)

    return Dialect((model_type,), knobs=_knobs, config=config, tensors=_tensors)

"""Recurrent models of any cell; `llm/models/lstm.py` and `gru.py` have their own.

What depends on the input alone is one product for all times; only the product
with the state is taken step by step. A state starts at zero where a text begins (its
position is 0), and stands still at padding. Names and axes are those of `torch.nn`, so
that weights go both ways.

`B batch, T time, D width, F gates * D`
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.knobs import Positive
from llm.nn.cache import Carry
from llm.nn.contract import Inputs, Output
from llm.nn.dropout import Dropout
from llm.nn.embedding import Embed
from llm.nn.hf_names import Dialect, Tensor
from llm.nn.model import Decoder, ModelConfig
from llm.nn.stack import Stack
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """The knobs of a recurrent model, beside those of all models."""

    layers: Positive = 2
    width: Positive = 512
    tied: bool = False


class Block(nn.Module):
    """A recurrent layer and dropout."""

    cfg: Config
    policy: Policy
    cell: Cell

    @nn.compact
    def __call__(self, x_BTD, cache, each, inputs: Inputs, train: bool, capture=()):
        del each
        x_BTD = nn.with_logical_constraint(x_BTD, ("batch", "length", "width"))
        layer = Recurrent(self.cell, self.policy, name="recurrent")
        x_BTD, state = layer(x_BTD, None if cache is None else cache.states, inputs)
        noted = {"residual": x_BTD} if "residual" in capture else {}
        x_BTD = Dropout(self.cfg.dropout)(x_BTD, inputs.index_B, train)
        return x_BTD, None if cache is None else Carry(state), noted


class RecurrentModel(Decoder):
    """Embedding, layers of one cell, head; dropout between them.

    The cache is the state of every layer, whatever the length of the text. The
    parameters are float32.
    """

    cell: ClassVar[Cell]

    def setup(self):
        cfg, policy = self.cfg, self.policy
        # As large as the states that it feeds, which the gates keep below one.
        self.embed = Embed(cfg.vocab_size, cfg.width, policy, scale=1.0)
        self.embed_dropout = Dropout(cfg.dropout)
        self.stack = Stack(functools.partial(Block, cell=self.cell), cfg, policy)
        self.unembed = self.own_head()

    def __call__(self, inputs: Inputs, cache=None, train=False, capture=()) -> Output:
        """Hidden states of a batch, and the states of all layers after it."""
        x_BTD = self.embed(inputs.tokens_BT)
        x_BTD = self.embed_dropout(x_BTD, inputs.index_B, train)
        x_BTD, cache, seen = self.stack(x_BTD, cache, None, inputs, train, capture)
        if self.is_initializing():
            self.head(x_BTD)
        return Output(x_BTD, cache, seen=seen)

    def last_norm(self, x_BTD: jax.Array) -> jax.Array:
        """The stream as it is: there is no norm."""
        return x_BTD

    def init_cache(self, batch: int, length: int) -> Carry:
        """The states of `batch` rows before their texts; of any `length`."""
        del length
        return Carry(self.cell.start(self.layers, batch, self.width))


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

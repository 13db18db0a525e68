"""What a model is to the rest of the code: a config, a policy, and a few answers.

A file of `llm/models/` writes each knob once, as a field of its frozen `Config`, and
has a `Model` of that config; `maker` makes of both the `make` that the registry calls.
Whoever wants to know something of a model reads `model.cfg`: what only some models have
is declared below with what it is in the others, so that nobody has to guess.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax

from llm import knobs
from llm.errors import InputError
from llm.knobs import Positive, ShareBelow1
from llm.losses import Head
from llm.nn import cache as caches
from llm.nn.stack import HOW, check_remat
from llm.nn.unembed import Unembed
from llm.precision import FLOAT32, Policy


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The knobs of all models, and what may be asked of any; defaults are of a file."""

    vocab_size: Positive
    layers: Positive
    width: Positive
    dropout: ShareBelow1 = 0.0
    how: Literal[HOW] = "scan"  # how layers repeat; see llm/nn/stack.py
    remat: str = "none"  # what the backward pass computes again; see there

    # A `Config` that has these as knobs makes them fields.
    heads: ClassVar[int] = 0  # without any, nothing is attended to
    head_dim: ClassVar[int] = 0
    windows: ClassVar[tuple] = ()  # how many keys a layer's query sees, in turn
    top_k: ClassVar[int] = 0  # experts of a token; 0 where there are none
    tied: ClassVar[bool] = True  # whether the head is the embedding
    mlm_head: ClassVar[bool] = True  # whether tokens can be predicted at all
    # Whether the learning rate stays when the width grows (`rates` of
    # llm/training/optim.py), which was checked by what the layers put out.
    transfers: ClassVar[bool] = False

    def __post_init__(self):
        for name, value in vars(self).items():
            if isinstance(value, list):  # of JSON; a config is hashed
                object.__setattr__(self, name, tuple(value))
        knobs.check("model", type(self), vars(self))
        check_remat(self.remat)
        self.check()

    def check(self) -> None:
        """Raises InputError for knobs that do not go together."""

    @property
    def context(self) -> int:
        """Positions that it has learned, the longest row; 0 where any will do."""
        return 0

    @property
    def decoder_depth(self) -> int:
        """Layers of what generates."""
        return self.layers

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.heads


def check_decoder(cfg: Any) -> None:
    """Raises InputError for sizes of a Llama or its like that cannot be built."""
    if cfg.heads % cfg.kv_heads:
        raise InputError(
            got=f"{cfg.heads} heads on {cfg.kv_heads} kv_heads",
            want="a whole number for each",
        )
    if cfg.head_dim % 2:
        raise InputError(got=f"head_dim {cfg.head_dim}", want="an even one, for rope")


class Model(nn.Module):
    """The base of all models; `llm/nn/contract.py` says how one is called.

    Attributes:
      generates: whether it continues texts; then it has `init_cache`.
      reads_source: whether it is an encoder-decoder; then it has `encode`.
    """

    cfg: Any
    policy: Policy = FLOAT32

    generates = False
    reads_source = False

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding, those of padding included."""
        return self.cfg.vocab_size

    @property
    def layers(self) -> int:
        """Of the stack; of an encoder-decoder, those of the encoder."""
        return self.cfg.layers

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return self.cfg.width

    def last_norm(self, x_BTD: jax.Array) -> jax.Array:
        """The stream of any layer as hidden states, for a look inside."""
        return x_BTD


class Decoder(Model):
    """A model of the next token; `setup` makes `embed`, `final_norm` and `unembed`."""

    generates = True

    def last_norm(self, x_BTD: jax.Array) -> jax.Array:
        """The stream of any layer as hidden states, for a look inside."""
        return self.final_norm(x_BTD)

    def own_head(self) -> Unembed | None:
        """What `setup` calls `unembed`; None where the head is the embedding."""
        if self.cfg.tied:
            return None
        return Unembed(self.width, self.vocab_size, self.policy, name="head")

    def head(self, hidden_BTD: jax.Array) -> Head:
        """What makes logits of the hidden states."""
        tied = self.cfg.tied
        return Head(hidden_BTD, self.embed.embedding.T if tied else self.unembed.kernel)

    def init_cache(self, batch: int, length: int) -> Any:
        """An empty cache for `batch` rows of at most `length` tokens."""
        shape_BSKH = (batch, length, self.cfg.kv_heads, self.cfg.head_dim)
        return caches.empty(self.layers, shape_BSKH, self.policy.activations)


def maker(model: type[Model], config: type[ModelConfig]) -> Callable[..., Model]:
    """The `make(*, vocab_size, policy, **knobs)` of a model file."""

    def make(*, policy: Policy = FLOAT32, **knobs: Any) -> Model:
        return model(config(**knobs), policy)

    make.__signature__ = inspect.signature(config)
    return make

"""OLMo 2: a decoder whose norms follow attention and feed-forward, none before them.

arXiv:2501.00656. What a branch adds to the stream is normalised, so that its size does
not depend on the stream's; queries and keys are normalised over all heads together.
The rest is a Llama: rotary positions, grouped heads, SwiGLU.

`B batch, T query, S key, D width, F mlp, N heads, K kv heads, H head dim, V vocab`

    model = make(vocab_size=4096, layers=4, width=256)
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax

from llm.knobs import Above0, Amount, Positive
from llm.nn import hf_names
from llm.nn.attention_layer import Attention
from llm.nn.contract import Inputs, Output
from llm.nn.dropout import Dropout
from llm.nn.embedding import Embed
from llm.nn.hf_names import Dialect, Tensor, require
from llm.nn.mlp import Gated
from llm.nn.model import Decoder, ModelConfig, check_decoder, maker
from llm.nn.norm import RMSNorm
from llm.nn.positions import rope_of
from llm.nn.stack import Stack
from llm.precision import Policy

KIND = "causal"
TINY = {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "mlp": 128}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """The knobs of an OLMo 2, beside those of all models."""

    layers: Positive = 4
    width: Positive = 256
    heads: Positive = 4
    kv_heads: Positive = 2
    head_dim: Positive = 64
    mlp: Positive = 704
    tied: bool = False
    rope_base: Above0 = 500_000.0
    rope_scaling: tuple = ()  # see llm/nn/positions.py
    epsilon: Amount = 1e-5
    embed_scale: Amount = 0.02  # standard deviation of the initial embeddings

    transfers = True

    def check(self) -> None:
        """Raises InputError for sizes that cannot be built."""
        check_decoder(self)


def _norm_of_all_heads(epsilon, name):
    norm = RMSNorm(epsilon, name=name)
    return lambda x_BTNH: norm(x_BTNH.reshape(*x_BTNH.shape[:2], -1)).reshape(
        x_BTNH.shape
    )


class Block(nn.Module):
    """Attention and feed-forward, each normalised and then added to the stream."""

    cfg: Config
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, each, inputs: Inputs, train: bool, capture=()):
        del each
        cfg, policy = self.cfg, self.policy
        x_BTD = nn.with_logical_constraint(x_BTD, ("batch", "stream", "width"))

        def drop(y_BTD):
            return Dropout(cfg.dropout)(y_BTD, inputs.index_B, train)

        with jax.named_scope("attention"):
            norm = functools.partial(_norm_of_all_heads, cfg.epsilon)
            attention = Attention(cfg, policy, norm=norm, name="attention")
            turn = rope_of(cfg, inputs.positions_BT, policy)
            y_BTD, cache, noted = attention(x_BTD, cache, turn, inputs, capture)
            y_BTD = RMSNorm(cfg.epsilon, name="attention_norm")(y_BTD)
            x_BTD = x_BTD + drop(y_BTD)
        with jax.named_scope("mlp"):
            y_BTD = Gated(cfg.mlp, policy, name="mlp")(x_BTD)
            y_BTD = RMSNorm(cfg.epsilon, name="mlp_norm")(y_BTD)
            x_BTD = x_BTD + drop(y_BTD)
        if "residual" in capture:
            noted["residual"] = x_BTD
        return x_BTD, cache, noted


class OLMo2(Decoder):
    """Embedding, blocks, norm and head; the parameters are float32."""

    def setup(self):
        cfg, policy = self.cfg, self.policy
        self.embed = Embed(cfg.vocab_size, cfg.width, policy, scale=cfg.embed_scale)
        self.stack = Stack(Block, cfg, policy)
        self.final_norm = RMSNorm(cfg.epsilon)
        self.unembed = self.own_head()

    def __call__(self, inputs: Inputs, cache=None, train=False, capture=()) -> Output:
        """Hidden states of a batch, and its keys and values for the cache."""
        x_BTD = self.embed(inputs.tokens_BT)
        x_BTD, cache, seen = self.stack(x_BTD, cache, None, inputs, train, capture)
        hidden_BTD = self.final_norm(x_BTD)
        if self.is_initializing():
            self.head(hidden_BTD)
        return Output(hidden_BTD, cache, seen=seen)


make = maker(OLMo2, Config)


def _knobs(config: dict[str, Any]) -> dict[str, Any]:
    require(config, hidden_act="silu", attention_bias=False)
    return {
        **hf_names.decoder_knobs(config),
        **hf_names.rope_knobs(config),
        "mlp": config["intermediate_size"],
        "tied": config.get("tie_word_embeddings", False),
    }


def _config(knobs: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    k = knobs
    return {
        "architectures": ["Olmo2ForCausalLM"],
        "model_type": "olmo2",
        **hf_names.decoder_config(k, vocab_size),
        "hidden_act": "silu",
        "tie_word_embeddings": k["tied"],
        "attention_bias": False,
        # The defaults are tokens of another vocabulary.
        "pad_token_id": None,
        "eos_token_id": None,
    }


def _tensors(knobs: dict[str, Any]) -> tuple[Tensor, ...]:
    ours, theirs = "stack/layer", "model.layers.{layer}"
    norms = {
        "attention_norm": "post_attention_layernorm",
        "mlp_norm": "post_feedforward_layernorm",
    }
    layer = [
        *hf_names.norm_tensors(ours, theirs, norms),
        *hf_names.attention_tensors(
            f"{ours}/attention", f"{theirs}.self_attn", qk_norm="d -> d"
        ),
        *hf_names.gated_tensors(f"{ours}/mlp", f"{theirs}.mlp"),
    ]
    return hf_names.decoder_tensors(layer, tied=knobs["tied"])


HF = Dialect(
    model_types=("olmo2",),
    knobs=_knobs,
    config=_config,
    tensors=_tensors,
    copies=hf_names.TIED_HEAD,
    defaults={"olmo2": {"rms_norm_eps": 1e-5}},
)

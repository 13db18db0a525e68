"""OLMo 2: a decoder whose norms follow attention and feed-forward, none before them.

arXiv:2501.00656. What a branch adds to the stream is normalised, so that its size does
not depend on the stream's; queries and keys are normalised over all heads together.
The rest is a Llama: rotary positions, grouped heads, SwiGLU.

`B batch, T query, S key, D width, F mlp, N heads, K kv heads, H head dim, V vocab`

    model = make(vocab_size=4096, layers=4, width=256)
"""

from typing import Any

import flax.linen as nn
import jax

from llm.losses import Head
from llm.nn import cache as caches
from llm.nn import hf_names
from llm.nn.attention import attention
from llm.nn.contract import Inputs, Output
from llm.nn.dense import Dense
from llm.nn.dropout import Dropout
from llm.nn.embedding import Embed
from llm.nn.hf_names import Dialect, Tensor, require
from llm.nn.mlp import Gated
from llm.nn.norm import RMSNorm
from llm.nn.positions import rope, rope_frequencies, rope_gain
from llm.nn.scores import attention_weights
from llm.nn.stack import Stack, check_decoder, check_stack
from llm.nn.unembed import Unembed
from llm.precision import FLOAT32, Policy

KIND = "causal"
TINY = {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "mlp": 128}


def make(
    *,
    vocab_size: int,
    layers: int = 4,
    width: int = 256,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 64,
    mlp: int = 704,
    tied: bool = False,
    rope_base: float = 500_000.0,
    rope_scaling: tuple = (),
    epsilon: float = 1e-5,
    dropout: float = 0.0,
    embed_scale: float = 0.02,
    how: str = "scan",
    remat: str = "none",
    policy: Policy = FLOAT32,
) -> "OLMo2":
    """An OLMo 2; `how` and `remat` are choices of `llm/nn/stack.py`.

    Args:
      rope_scaling: see `llm/nn/positions.py`.
      embed_scale: standard deviation of the initial embeddings.
    """
    check_stack(layers, how, remat)
    check_decoder(
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp=mlp,
        dropout=dropout,
    )
    return OLMo2(
        vocab_size=vocab_size,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp=mlp,
        tied=tied,
        rope_base=rope_base,
        rope_scaling=tuple(rope_scaling),
        epsilon=epsilon,
        dropout=dropout,
        embed_scale=embed_scale,
        how=how,
        remat=remat,
        policy=policy,
    )


class Attention(nn.Module):
    """Self-attention with rotary positions; queries and keys are normalised whole."""

    heads: int
    kv_heads: int
    head_dim: int
    rope_base: float
    rope_scaling: tuple
    epsilon: float
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, inputs: Inputs, capture):
        D, N, K, H = x_BTD.shape[-1], self.heads, self.kv_heads, self.head_dim

        def project(name, heads, axis):
            return Dense(
                "BTD,DNH->BTNH",
                shape=(D, heads, H),
                axes=("embed", axis, "head_dim"),
                policy=self.policy,
                name=name,
            )(x_BTD)

        q_BTNH = project("query", N, "heads")
        k_BTKH = project("key", K, "kv_heads")
        v_BTKH = project("value", K, "kv_heads")

        def normalised(name, x_BTNH):
            flat = x_BTNH.reshape(*x_BTNH.shape[:2], -1)
            return RMSNorm(self.epsilon, name=name)(flat).reshape(x_BTNH.shape)

        q_BTNH = normalised("query_norm", q_BTNH)
        k_BTKH = normalised("key_norm", k_BTKH)
        positions_BT = inputs.positions_BT
        frequency_H = rope_frequencies(H, self.rope_base, self.rope_scaling)
        gain = rope_gain(self.rope_scaling)
        q_BTNH = rope(q_BTNH, positions_BT, frequency_H, gain)
        k_BTKH = rope(k_BTKH, positions_BT, frequency_H, gain)
        context, new = caches.extend(cache, k_BTKH, v_BTKH, inputs)
        o_BTNH = attention(q_BTNH, context, policy=self.policy)
        noted = {}
        if "attention" in capture:
            noted["attention"] = attention_weights(q_BTNH, context, policy=self.policy)
        o_BTNH = nn.with_logical_constraint(
            o_BTNH, ("batch", "length", "heads", "head_dim")
        )
        out_BTD = Dense(
            "BTNH,NHD->BTD",
            shape=(N, H, D),
            axes=("heads", "head_dim", "embed"),
            policy=self.policy,
            name="out",
        )(o_BTNH)
        return out_BTD, new, noted


class Block(nn.Module):
    """Attention and feed-forward, each normalised and then added to the stream."""

    attention: dict[str, Any]
    mlp: int
    epsilon: float
    dropout: float
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, each, inputs: Inputs, train: bool, capture=()):
        del each
        x_BTD = nn.with_logical_constraint(x_BTD, ("batch", "stream", "width"))

        def drop(y_BTD):
            return Dropout(self.dropout)(y_BTD, inputs.index_B, train)

        with jax.named_scope("attention"):
            y_BTD, cache, noted = Attention(**self.attention, name="attention")(
                x_BTD, cache, inputs, capture
            )
            y_BTD = RMSNorm(self.epsilon, name="attention_norm")(y_BTD)
            x_BTD = x_BTD + drop(y_BTD)
        with jax.named_scope("mlp"):
            y_BTD = Gated(self.mlp, self.policy, name="mlp")(x_BTD)
            y_BTD = RMSNorm(self.epsilon, name="mlp_norm")(y_BTD)
            x_BTD = x_BTD + drop(y_BTD)
        if "residual" in capture:
            noted["residual"] = x_BTD
        return x_BTD, cache, noted


class OLMo2(nn.Module):
    """See `make`. The parameters are float32."""

    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    tied: bool
    rope_base: float
    rope_scaling: tuple
    epsilon: float
    dropout: float
    embed_scale: float
    how: str
    remat: str
    policy: Policy

    def setup(self):
        self.embed = Embed(
            self.vocab_size,
            self.width,
            self.policy,
            scale=self.embed_scale,
        )
        attention = {
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "rope_base": self.rope_base,
            "rope_scaling": self.rope_scaling,
            "epsilon": self.epsilon,
            "policy": self.policy,
        }
        block = {
            "attention": attention,
            "mlp": self.mlp,
            "epsilon": self.epsilon,
            "dropout": self.dropout,
            "policy": self.policy,
        }
        self.stack = Stack(Block, self.layers, block, self.how, self.remat)
        self.final_norm = RMSNorm(self.epsilon)
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
        """Hidden states of a batch, and its keys and values for the cache."""
        x_BTD = self.embed(inputs.tokens_BT)
        x_BTD, cache, seen = self.stack(x_BTD, cache, None, inputs, train, capture)
        hidden_BTD = self.final_norm(x_BTD)
        if self.is_initializing():
            self.head(hidden_BTD)
        return Output(hidden_BTD, cache, seen=seen)

    def head(self, hidden_BTD: jax.Array) -> Head:
        """What makes logits of the hidden states."""
        kernel_DV = self.embed.embedding.T if self.tied else self.unembed.kernel
        return Head(hidden_BTD, kernel_DV)

    def init_cache(self, batch: int, length: int) -> caches.KeyValues:
        """An empty cache for `batch` rows of at most `length` tokens."""
        shape_BSKH = (batch, length, self.kv_heads, self.head_dim)
        return caches.empty(self.layers, shape_BSKH, self.policy.activations)


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

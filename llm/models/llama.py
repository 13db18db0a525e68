"""Llama: a pre-norm decoder with RMSNorm, rotary positions, grouped heads and SwiGLU.

arXiv:2302.13971 and 2407.21783. The same wiring is Mistral (2310.06825, `windows`),
Qwen 2 (2407.10671, `qkv_bias`), SmolLM 2 and, with `qk_norm`, Qwen 3 (2505.09388):
queries and keys are normalised a head, which bounds the scores and allows high learning
rates. Residual branches start at zero (`residual_scale=0`), so that the network starts
as its embedding.

`B batch, T query, S key, D width, F mlp, N heads, K kv heads, H head dim, V vocab`

    model = make(vocab_size=4096, layers=4, width=256)
    params = model.init(jax.random.key(0), inputs)["params"]
    output = model.apply({"params": params}, inputs)
"""

from typing import Any

import flax.linen as nn
import jax

from llm.errors import InputError
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
from llm.nn.stack import Stack, check_decoder, check_stack, in_turn
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
    qk_norm: bool = True,
    qkv_bias: bool = False,
    windows: tuple = (),
    tied: bool = False,
    rope_base: float = 10_000.0,
    rope_scaling: tuple = (),
    epsilon: float = 1e-6,
    dropout: float = 0.0,
    residual_scale: float = 0.0,
    embed_scale: float = 0.02,
    how: str = "scan",
    remat: str = "none",
    policy: Policy = FLOAT32,
) -> "Llama":
    """A Llama; `how` and `remat` are choices of `llm/nn/stack.py`.

    Args:
      windows: how many keys a query of each layer sees, in turn (0 is all); () is all
        for all.
      rope_scaling: see `llm/nn/positions.py`.
      residual_scale: initial kernels that end a branch, in units of 1/sqrt(fan-in).
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
    return Llama(
        vocab_size=vocab_size,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp=mlp,
        qk_norm=qk_norm,
        qkv_bias=qkv_bias,
        windows=tuple(windows),
        tied=tied,
        rope_base=rope_base,
        rope_scaling=tuple(rope_scaling),
        epsilon=epsilon,
        dropout=dropout,
        residual_scale=residual_scale,
        embed_scale=embed_scale,
        how=how,
        remat=remat,
        policy=policy,
    )


class Attention(nn.Module):
    """Self-attention with rotary positions and an optional norm of queries and keys."""

    heads: int
    kv_heads: int
    head_dim: int
    qk_norm: bool
    qkv_bias: bool
    rope_base: float
    rope_scaling: tuple
    epsilon: float
    residual_scale: float
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, window, inputs: Inputs, capture):
        D, N, K, H = x_BTD.shape[-1], self.heads, self.kv_heads, self.head_dim

        def project(name, heads, axis):
            return Dense(
                "BTD,DNH->BTNH",
                shape=(D, heads, H),
                axes=("embed", axis, "head_dim"),
                policy=self.policy,
                bias=self.qkv_bias,
                name=name,
            )(x_BTD)

        q_BTNH = project("query", N, "heads")
        k_BTKH = project("key", K, "kv_heads")
        v_BTKH = project("value", K, "kv_heads")
        if self.qk_norm:
            q_BTNH = RMSNorm(self.epsilon, "head_dim", name="query_norm")(q_BTNH)
            k_BTKH = RMSNorm(self.epsilon, "head_dim", name="key_norm")(k_BTKH)
        positions_BT = inputs.positions_BT
        frequency_H = rope_frequencies(H, self.rope_base, self.rope_scaling)
        gain = rope_gain(self.rope_scaling)
        q_BTNH = rope(q_BTNH, positions_BT, frequency_H, gain, self.policy)
        k_BTKH = rope(k_BTKH, positions_BT, frequency_H, gain, self.policy)
        context, new = caches.extend(cache, k_BTKH, v_BTKH, inputs)
        o_BTNH = attention(q_BTNH, context, window=window, policy=self.policy)
        noted = {}
        if "attention" in capture:
            noted["attention"] = attention_weights(
                q_BTNH, context, window=window, policy=self.policy
            )
        o_BTNH = nn.with_logical_constraint(
            o_BTNH, ("batch", "length", "heads", "head_dim")
        )
        out_BTD = Dense(
            "BTNH,NHD->BTD",
            shape=(N, H, D),
            axes=("heads", "head_dim", "embed"),
            policy=self.policy,
            scale=self.residual_scale,
            name="out",
        )(o_BTNH)
        return out_BTD, new, noted


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the stream."""

    attention: dict[str, Any]
    mlp: int
    epsilon: float
    dropout: float
    residual_scale: float
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, window, inputs: Inputs, train: bool, capture=()):
        x_BTD = nn.with_logical_constraint(x_BTD, ("batch", "stream", "width"))

        def drop(y_BTD):
            return Dropout(self.dropout)(y_BTD, inputs.index_B, train)

        with jax.named_scope("attention"):
            y_BTD = RMSNorm(self.epsilon, name="attention_norm")(x_BTD)
            y_BTD, cache, noted = Attention(**self.attention, name="attention")(
                y_BTD, cache, window, inputs, capture
            )
            x_BTD = x_BTD + drop(y_BTD)
        with jax.named_scope("mlp"):
            y_BTD = RMSNorm(self.epsilon, name="mlp_norm")(x_BTD)
            y_BTD = Gated(self.mlp, self.policy, self.residual_scale, name="mlp")(y_BTD)
            x_BTD = x_BTD + drop(y_BTD)
        if "residual" in capture:
            noted["residual"] = x_BTD
        return x_BTD, cache, noted


class Llama(nn.Module):
    """See `make`. The parameters are float32."""

    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    qk_norm: bool
    qkv_bias: bool
    windows: tuple
    tied: bool
    rope_base: float
    rope_scaling: tuple
    epsilon: float
    dropout: float
    residual_scale: float
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
            "qk_norm": self.qk_norm,
            "qkv_bias": self.qkv_bias,
            "rope_base": self.rope_base,
            "rope_scaling": self.rope_scaling,
            "epsilon": self.epsilon,
            "residual_scale": self.residual_scale,
            "policy": self.policy,
        }
        block = {
            "attention": attention,
            "mlp": self.mlp,
            "epsilon": self.epsilon,
            "dropout": self.dropout,
            "residual_scale": self.residual_scale,
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
        windows_L = in_turn(self.windows, self.layers)
        x_BTD, cache, seen = self.stack(x_BTD, cache, windows_L, inputs, train, capture)
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
    kind = config["model_type"]
    require(config, hidden_act="silu", mlp_bias=False, attention_bias=False)
    return {
        **hf_names.decoder_knobs(config),
        **hf_names.rope_knobs(config),
        "mlp": config["intermediate_size"],
        "qk_norm": kind == "qwen3",
        "qkv_bias": kind == "qwen2",
        "windows": _windows(config),
        "tied": config.get("tie_word_embeddings", False),
    }


def _windows(config):
    kind = config["model_type"]
    window = None if kind == "llama" else config.get("sliding_window")
    if not window:
        return ()
    if kind == "mistral":
        return (window,)
    first = config.get("max_window_layers", 0)
    count = config["num_hidden_layers"]
    old = ["full_attention"] * first + ["sliding_attention"] * (count - first)
    types = config.get("layer_types") or old[:count]
    sliding = config.get("use_sliding_window", False)
    found = [window * (t == "sliding_attention") for t in types]
    return tuple(found) if sliding and any(found) else ()


def _config(knobs: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    k, windows = knobs, knobs["windows"]
    if k["qk_norm"] and k["qkv_bias"]:
        raise InputError(
            got="a Llama with qk_norm and qkv_bias", want="one of them, to be exported"
        )
    uniform = "mistral" if windows else "llama"
    kind = "qwen3" if k["qk_norm"] else "qwen2" if k["qkv_bias"] else uniform
    sizes = {w for w in windows if w}
    if len(sizes) > 1 or (kind == "mistral" and 0 in windows):
        raise InputError(
            got=f"windows {windows} in a {kind}", want="one window, to be exported"
        )
    config = {
        "architectures": [f"{kind.title()}ForCausalLM"],
        "model_type": kind,
        **hf_names.decoder_config(k, vocab_size),
        "hidden_act": "silu",
        "tie_word_embeddings": k["tied"],
        "attention_bias": False,
    }
    if kind == "mistral":
        config["sliding_window"] = windows[0]
    elif windows:
        turns = [windows[i % len(windows)] for i in range(k["layers"])]
        config["use_sliding_window"], config["sliding_window"] = True, max(sizes)
        config["layer_types"] = [
            "sliding_attention" if w else "full_attention" for w in turns
        ]
    return config


def _tensors(knobs: dict[str, Any]) -> tuple[Tensor, ...]:
    ours, theirs = "stack/layer", "model.layers.{layer}"
    norms = {
        "attention_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
    }
    qk_norm = "h -> h" if knobs["qk_norm"] else ""
    layer = [
        *hf_names.norm_tensors(ours, theirs, norms),
        *hf_names.attention_tensors(
            f"{ours}/attention", f"{theirs}.self_attn", qk_norm=qk_norm
        ),
        *hf_names.gated_tensors(f"{ours}/mlp", f"{theirs}.mlp"),
    ]
    if knobs["qkv_bias"]:
        for part, name in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
            mine, its = f"{ours}/attention/{part}", f"{theirs}.self_attn.{name}"
            layer.append(Tensor(f"{mine}/bias", f"{its}.bias", "(nh) -> nh"))
    return hf_names.decoder_tensors(layer, tied=knobs["tied"])


HF = Dialect(
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    knobs=_knobs,
    config=_config,
    tensors=_tensors,
    extras=(r".*rotary_emb\.inv_freq",),  # tables that old files carry
    copies=hf_names.TIED_HEAD,
    defaults={
        "llama": {"rms_norm_eps": 1e-6},
        "mistral": {
            "rms_norm_eps": 1e-6, "num_key_value_heads": 8, "sliding_window": 4096,
        },
        "qwen2": {
            "rms_norm_eps": 1e-6, "num_key_value_heads": 32, "max_window_layers": 28,
            "sliding_window": 4096,
        },
        "qwen3": {
            "rms_norm_eps": 1e-6, "num_key_value_heads": 32, "max_window_layers": 28,
            "sliding_window": 4096, "head_dim": 128,
        },
    },
)  # fmt: skip

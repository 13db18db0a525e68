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

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax

from llm.errors import InputError
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
from llm.nn.stack import Stack, in_turn
from llm.precision import Policy

KIND = "causal"
TINY = {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "mlp": 128}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """The knobs of a Llama, beside those of all models."""

    layers: Positive = 4
    width: Positive = 256
    heads: Positive = 4
    kv_heads: Positive = 2
    head_dim: Positive = 64
    mlp: Positive = 704
    qk_norm: bool = True
    qkv_bias: bool = False
    windows: tuple = ()  # keys that a query of each layer sees, in turn; 0 is all
    tied: bool = False
    rope_base: Above0 = 10_000.0
    rope_scaling: tuple = ()  # see llm/nn/positions.py
    epsilon: Amount = 1e-6
    residual_scale: Amount = 0.0  # of what ends a branch, in units of 1/sqrt(fan-in)
    embed_scale: Amount = 0.02  # standard deviation of the initial embeddings

    transfers = True

    def check(self) -> None:
        """Raises InputError for sizes that cannot be built."""
        check_decoder(self)


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the stream."""

    cfg: Config
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, window, inputs: Inputs, train: bool, capture=()):
        cfg, policy = self.cfg, self.policy
        x_BTD = nn.with_logical_constraint(x_BTD, ("batch", "stream", "width"))

        def drop(y_BTD):
            return Dropout(cfg.dropout)(y_BTD, inputs.index_B, train)

        with jax.named_scope("attention"):
            y_BTD = RMSNorm(cfg.epsilon, name="attention_norm")(x_BTD)
            of_heads = functools.partial(RMSNorm, cfg.epsilon, "head_dim")
            attention = Attention(
                cfg,
                policy,
                norm=of_heads if cfg.qk_norm else None,
                bias=cfg.qkv_bias,
                residual_scale=cfg.residual_scale,
                name="attention",
            )
            turn = rope_of(cfg, inputs.positions_BT, policy)
            y_BTD, cache, noted = attention(y_BTD, cache, turn, inputs, capture, window)
            x_BTD = x_BTD + drop(y_BTD)
        with jax.named_scope("mlp"):
            y_BTD = RMSNorm(cfg.epsilon, name="mlp_norm")(x_BTD)
            y_BTD = Gated(cfg.mlp, policy, cfg.residual_scale, name="mlp")(y_BTD)
            x_BTD = x_BTD + drop(y_BTD)
        if "residual" in capture:
            noted["residual"] = x_BTD
        return x_BTD, cache, noted


class Llama(Decoder):
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
        windows_L = in_turn(self.cfg.windows, self.cfg.layers)
        x_BTD, cache, seen = self.stack(x_BTD, cache, windows_L, inputs, train, capture)
        hidden_BTD = self.final_norm(x_BTD)
        if self.is_initializing():
            self.head(hidden_BTD)
        return Output(hidden_BTD, cache, seen=seen)


make = maker(Llama, Config)


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

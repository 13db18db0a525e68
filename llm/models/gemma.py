"""Gemma 2 and 3: norms before and after each branch, local and global layers in turn.

arXiv:2408.00118 and 2503.19786. Embeddings are multiplied by sqrt(width) and are the
head; norms scale by 1 + scale; feed-forward layers are GeGLU. Most layers see a window.
Gemma 2 caps its scores and its logits (`attention_softcap`, `softcap`); Gemma 3
normalises queries and keys instead (`qk_norm`), and its local layers have a rope of
their own (`rope_local`).

`B batch, T query, S key, D width, F mlp, N heads, K kv heads, H head dim, V vocab,
L layers`

    model = make(vocab_size=4096, layers=6, width=256)  # Gemma 3
    model = make(
        vocab_size=4096, layers=4, width=256, windows=(512, 0), qk_norm=False,
        rope_base=10_000.0, rope_local=0.0, attention_softcap=50.0, softcap=30.0,
    )  # Gemma 2
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.errors import InputError
from llm.knobs import Above0, Amount, Positive
from llm.losses import Head
from llm.nn import hf_names
from llm.nn.attention_layer import Attention
from llm.nn.contract import Inputs, Output
from llm.nn.dropout import Dropout
from llm.nn.embedding import Embed
from llm.nn.hf_names import Dialect, Tensor, require
from llm.nn.mlp import Gated
from llm.nn.model import Decoder, ModelConfig, check_decoder, maker
from llm.nn.norm import OffsetRMSNorm
from llm.nn.positions import rope, rope_frequencies, rope_gain
from llm.nn.stack import Stack, in_turn
from llm.precision import Policy

KIND = "causal"
TINY = {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "mlp": 128,
        "windows": (5, 0)}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """The knobs of a Gemma, beside those of all models."""

    layers: Positive = 4
    width: Positive = 256
    heads: Positive = 4
    kv_heads: Positive = 2
    head_dim: Positive = 64
    mlp: Positive = 704
    qk_norm: bool = True
    # Keys that a query of each layer sees, in turn; 0 is all, () is all for all.
    windows: tuple = (512, 512, 512, 512, 512, 0)
    query_scalar: int = 0  # scores are multiplied by its **-0.5; 0 is head_dim
    attention_softcap: float = 0.0  # bounds scores by c * tanh(x / c); 0 does not
    softcap: float = 0.0  # the same of logits
    rope_base: Above0 = 1_000_000.0
    # Base of layers with a window, whose rope is not stretched; 0 is that of others.
    rope_local: float = 10_000.0
    rope_scaling: tuple = ()  # see llm/nn/positions.py
    epsilon: Amount = 1e-6
    embed_scale: Amount = 0.02  # standard deviation of the initial embeddings

    def check(self) -> None:
        """Raises InputError for sizes that cannot be built."""
        check_decoder(self)


class Block(nn.Module):
    """Attention and feed-forward, each between two norms and added to the stream."""

    cfg: Config
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, each, inputs: Inputs, train: bool, capture=()):
        cfg, policy = self.cfg, self.policy
        x_BTD = nn.with_logical_constraint(x_BTD, ("batch", "stream", "width"))

        def norm(name):
            return OffsetRMSNorm(cfg.epsilon, name=name)

        def drop(y_BTD):
            return Dropout(cfg.dropout)(y_BTD, inputs.index_B, train)

        def turn(x_BTNH):
            return rope(
                x_BTNH, inputs.positions_BT, each["frequency"], each["gain"], policy
            )

        with jax.named_scope("attention"):
            of_heads = functools.partial(OffsetRMSNorm, cfg.epsilon, "head_dim")
            attention = Attention(
                cfg,
                policy,
                norm=of_heads if cfg.qk_norm else None,
                scale=(cfg.query_scalar or cfg.head_dim) ** -0.5,
                softcap=cfg.attention_softcap,
                name="attention",
            )
            y_BTD = norm("attention_norm")(x_BTD)
            y_BTD, cache, noted = attention(
                y_BTD, cache, turn, inputs, capture, each["window"]
            )
            x_BTD = x_BTD + drop(norm("attention_post_norm")(y_BTD))
        with jax.named_scope("mlp"):
            y_BTD = Gated(cfg.mlp, policy, activation="gelu_tanh", name="mlp")(
                norm("mlp_norm")(x_BTD)
            )
            x_BTD = x_BTD + drop(norm("mlp_post_norm")(y_BTD))
        if "residual" in capture:
            noted["residual"] = x_BTD
        return x_BTD, cache, noted


class Gemma(Decoder):
    """Embedding, blocks, and norm; the parameters are float32."""

    def setup(self):
        cfg, policy = self.cfg, self.policy
        self.embed = Embed(cfg.vocab_size, cfg.width, policy, scale=cfg.embed_scale)
        self.stack = Stack(Block, cfg, policy)
        self.final_norm = OffsetRMSNorm(cfg.epsilon)

    def __call__(self, inputs: Inputs, cache=None, train=False, capture=()) -> Output:
        """Hidden states of a batch, and its keys and values for the cache."""
        x_BTD = self.embed(inputs.tokens_BT) * self.cfg.width**0.5
        x_BTD, cache, seen = self.stack(
            x_BTD, cache, self._each(), inputs, train, capture
        )
        return Output(self.final_norm(x_BTD), cache, seen=seen)

    def _each(self):
        """What differs between layers: window and rope, with a leading axis L."""
        cfg = self.cfg
        windows = cfg.windows or (0,)
        ropes = [
            (cfg.rope_local, ())
            if windows[i % len(windows)] and cfg.rope_local
            else (cfg.rope_base, cfg.rope_scaling)
            for i in range(cfg.layers)
        ]
        tables = [rope_frequencies(cfg.head_dim, *one) for one in ropes]
        gains = [rope_gain(scaling) for _, scaling in ropes]
        return {
            "window": in_turn(cfg.windows, cfg.layers),
            "frequency": jnp.stack(tables),
            "gain": jnp.array(gains, jnp.float32),
        }

    def head(self, hidden_BTD: jax.Array) -> Head:
        """What makes logits of the hidden states."""
        return super().head(hidden_BTD)._replace(softcap=self.cfg.softcap)


make = maker(Gemma, Config)


def _knobs(config: dict[str, Any]) -> dict[str, Any]:
    three = config["model_type"] == "gemma3_text"
    require(
        config,
        hidden_activation="gelu_pytorch_tanh",
        attention_bias=False,
        tie_word_embeddings=True,
        use_bidirectional_attention=(False, None),
    )
    if three:
        require(config, attn_logit_softcapping=None)
        ropes, caps = _ropes(config), (None, None)
    else:
        ropes, caps = {**hf_names.rope_knobs(config), "rope_local": 0.0}, (50.0, 30.0)
    return {
        **hf_names.decoder_knobs(config),
        **ropes,
        "mlp": config["intermediate_size"],
        # Its defaults do not follow from the other sizes.
        "kv_heads": config["num_key_value_heads"],
        "head_dim": config["head_dim"],
        "qk_norm": three,
        "windows": _windows(config, 6 if three else 2),
        "query_scalar": int(config["query_pre_attn_scalar"]),
        "attention_softcap": config.get("attn_logit_softcapping", caps[0]) or 0.0,
        "softcap": config.get("final_logit_softcapping", caps[1]) or 0.0,
    }


def _windows(config, period):
    """Without a list, the last layer of each period sees all."""
    period = config.get("sliding_window_pattern", period)
    old = [
        "sliding_attention" if (i + 1) % period else "full_attention"
        for i in range(config["num_hidden_layers"])
    ]
    window = config.get("sliding_window", 4096) or 0
    types = config.get("layer_types") or old
    found = tuple(window * (t == "sliding_attention") for t in types)
    return found if any(found) else ()


def _ropes(config):
    """Both ropes; newer files have them by the kind of layer."""
    given = config.get("rope_parameters") or {}
    by_kind = {"full_attention", "sliding_attention"} & set(given)
    full = given.get("full_attention") if by_kind else given
    local = (given.get("sliding_attention") if by_kind else None) or {}
    plain = {} if "rope_theta" in (full or {}) else {"rope_theta": 1e6}
    ropes = hf_names.rope_knobs({**plain, **config, "rope_parameters": full})
    if local.get("rope_type", "default") != "default":
        raise InputError(
            got=f"rope_type {local['rope_type']!r} of sliding_attention", want="default"
        )
    own = local.get("rope_theta", config.get("rope_local_base_freq", 10_000.0))
    return ropes | {"rope_local": float(own)}


def _config(knobs: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    k, three = knobs, knobs["qk_norm"]
    windows = k["windows"] or (0,)
    sizes = {w for w in windows if w}
    for wrong, got, want in (
        (len(sizes) > 1, f"windows {windows}", "one window"),
        (three and k["attention_softcap"], "qk_norm and attention_softcap", "one"),
        (three and not k["rope_local"], "qk_norm without rope_local", "both"),
        (not three and k["rope_local"], "rope_local without qk_norm", "both"),
    ):
        if wrong:
            raise InputError(got=f"a Gemma with {got}", want=f"{want}, to be exported")
    kinds = ("full_attention", "sliding_attention")
    turns = [windows[i % len(windows)] for i in range(k["layers"])]
    config = {
        "architectures": ["Gemma3ForCausalLM" if three else "Gemma2ForCausalLM"],
        "model_type": "gemma3_text" if three else "gemma2",
        **hf_names.decoder_config(k, vocab_size),
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": k["query_scalar"] or k["head_dim"],
        "attn_logit_softcapping": k["attention_softcap"] or None,
        "final_logit_softcapping": k["softcap"] or None,
        "sliding_window": max(sizes, default=4096),
        "layer_types": [kinds[bool(w)] for w in turns],
        "tie_word_embeddings": True,
        "attention_bias": False,
        # The defaults are tokens of another vocabulary.
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if three:
        local = hf_names.rope_parameters(k["rope_local"], ())
        ropes = (config["rope_parameters"], local)
        config["rope_parameters"] = dict(zip(kinds, ropes, strict=True))
        config["rope_local_base_freq"] = k["rope_local"]
    return config


def _tensors(knobs: dict[str, Any]) -> tuple[Tensor, ...]:
    ours, theirs = "stack/layer", "model.layers.{layer}"
    norms = {
        "attention_norm": "input_layernorm",
        "attention_post_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "mlp_post_norm": "post_feedforward_layernorm",
    }
    qk_norm = "h -> h" if knobs["qk_norm"] else ""
    layer = [
        *hf_names.norm_tensors(ours, theirs, norms),
        *hf_names.attention_tensors(
            f"{ours}/attention", f"{theirs}.self_attn", qk_norm=qk_norm
        ),
        *hf_names.gated_tensors(f"{ours}/mlp", f"{theirs}.mlp"),
    ]
    return hf_names.decoder_tensors(layer, tied=True)


HF = Dialect(
    model_types=("gemma2", "gemma3_text"),
    knobs=_knobs,
    config=_config,
    tensors=_tensors,
    copies=hf_names.TIED_HEAD,
    defaults={
        "gemma2": {"rms_norm_eps": 1e-6, "num_key_value_heads": 4, "head_dim": 256},
        "gemma3_text": {
            "rms_norm_eps": 1e-6,
            "num_key_value_heads": 4,
            "head_dim": 256,
        },
    },
)

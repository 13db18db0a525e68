"""GPT-2: a pre-norm decoder with LayerNorm, GELU, biases and learned positions.

Radford et al. 2019, "Language models are unsupervised multitask learners". The head is
the embedding. A text longer than `length` is refused where it is asked for. To compare
them, positions may be of other kinds: sinusoidal, ALiBi, or none at all.

`B batch, T query, S key, D width, F mlp, N heads, H head dim, V vocab`

    model = make(vocab_size=50304, layers=12, width=768, heads=12)
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from llm.errors import InputError
from llm.knobs import Amount, Count, Positive
from llm.nn import cache as caches
from llm.nn.attention_layer import attend, heads_of, joined
from llm.nn.contract import Inputs, Output
from llm.nn.dropout import Dropout
from llm.nn.embedding import Embed
from llm.nn.hf_names import HEAD, Dialect, Tensor, require
from llm.nn.mlp import MLP
from llm.nn.model import Decoder, ModelConfig, maker
from llm.nn.norm import LayerNorm
from llm.nn.positions import Learned, alibi, sinusoidal
from llm.nn.stack import Stack
from llm.precision import Policy

KIND = "causal"
POSITIONS = ("learned", "sinusoidal", "alibi", "none")
TINY = {"layers": 2, "width": 64, "heads": 4, "length": 128}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """The knobs of a GPT-2, beside those of all models."""

    layers: Positive = 12
    width: Positive = 768
    heads: Positive = 12
    mlp: Count = 0  # 0 is four times the width
    # `learned`, as in GPT-2; `sinusoidal` (arXiv:1706.03762); `alibi`, a penalty on
    # distance (2108.12409); or `none`: only causality tells them.
    positions: str = "learned"
    length: int = 1024  # positions that are learned
    epsilon: Amount = 1e-5

    def check(self) -> None:
        """Raises InputError for knobs that do not go together."""
        if self.positions not in POSITIONS:
            raise InputError(
                got=f"model.positions {self.positions!r}",
                want=f"one of {', '.join(POSITIONS)}",
            )
        if self.positions == "sinusoidal" and self.width % 2:
            raise InputError(
                got=f"width {self.width}", want="an even one, for sinusoidal"
            )
        if self.width % self.heads:
            raise InputError(
                got=f"width {self.width}", want=f"a multiple of {self.heads} heads"
            )

    @property
    def context(self) -> int:
        """Positions that it has learned; 0 of the other kinds."""
        return self.length if self.positions == "learned" else 0

    @property
    def head_dim(self) -> int:
        """Of every head."""
        return self.width // self.heads

    @property
    def residual_scale(self) -> float:
        """Its authors divide by the root of the number of residual branches."""
        return (2 * self.layers) ** -0.5


class Attention(nn.Module):
    """Self-attention with biases."""

    cfg: Config
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, inputs: Inputs, capture):
        cfg, policy = self.cfg, self.policy
        shape_NH = (cfg.heads, cfg.head_dim)
        q_BTNH, k_BTNH, v_BTNH = (
            heads_of(name, x_BTD, shape_NH, policy, bias=True)
            for name in ("query", "key", "value")
        )
        context, new = caches.extend(cache, k_BTNH, v_BTNH, inputs)
        bias_BNTS, reach = None, context.reach
        if cfg.positions == "alibi":
            bias_BNTS = alibi(cfg.heads, reach.positions_BT, reach.positions_BS)
        o_BTNH, noted = attend(q_BTNH, context, capture, policy, bias_BNTS=bias_BNTS)
        out_BTD = joined(o_BTNH, cfg.width, policy, scale=cfg.residual_scale, bias=True)
        return out_BTD, new, noted


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the stream."""

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
            y_BTD = LayerNorm(cfg.epsilon, name="attention_norm")(x_BTD)
            y_BTD, cache, noted = Attention(cfg, policy, name="attention")(
                y_BTD, cache, inputs, capture
            )
            x_BTD = x_BTD + drop(y_BTD)
        with jax.named_scope("mlp"):
            y_BTD = LayerNorm(cfg.epsilon, name="mlp_norm")(x_BTD)
            y_BTD = MLP(
                cfg.mlp or 4 * cfg.width,
                policy,
                residual_scale=cfg.residual_scale,
                name="mlp",
            )(y_BTD)
            x_BTD = x_BTD + drop(y_BTD)
        if "residual" in capture:
            noted["residual"] = x_BTD
        return x_BTD, cache, noted


class GPT(Decoder):
    """Embedding, positions, blocks and norm; the parameters are float32."""

    def setup(self):
        cfg, policy = self.cfg, self.policy
        self.embed = Embed(cfg.vocab_size, cfg.width, policy, scale=0.02)
        if cfg.positions == "learned":
            self.learned = Learned(cfg.length, cfg.width, scale=0.01, name="positions")
        self.embed_dropout = Dropout(cfg.dropout)
        self.stack = Stack(Block, cfg, policy)
        self.final_norm = LayerNorm(cfg.epsilon)

    def __call__(self, inputs: Inputs, cache=None, train=False, capture=()) -> Output:
        """Hidden states of a batch, and its keys and values for the cache."""
        x_BTD = self.embed(inputs.tokens_BT)
        if self.cfg.positions == "learned":
            x_BTD = x_BTD + self.learned(inputs.positions_BT).astype(x_BTD.dtype)
        elif self.cfg.positions == "sinusoidal":
            # As large as the embeddings, which start small.
            waves_BTD = 0.02 * sinusoidal(inputs.positions_BT, self.width)
            x_BTD = x_BTD + waves_BTD.astype(x_BTD.dtype)
        x_BTD = self.embed_dropout(x_BTD, inputs.index_B, train)
        x_BTD, cache, seen = self.stack(x_BTD, cache, None, inputs, train, capture)
        return Output(self.final_norm(x_BTD), cache, seen=seen)


make = maker(GPT, Config)


def _knobs(config: dict[str, Any]) -> dict[str, Any]:
    require(
        config,
        activation_function=("gelu_new", "gelu_pytorch_tanh"),
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
        tie_word_embeddings=True,
    )
    return {
        "vocab_size": config["vocab_size"],
        "layers": config["n_layer"],
        "width": config["n_embd"],
        "heads": config["n_head"],
        "mlp": config.get("n_inner") or 4 * config["n_embd"],
        "length": config["n_positions"],
        "epsilon": config["layer_norm_epsilon"],
    }


def _config(knobs: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    if knobs.get("positions", "learned") != "learned":
        raise InputError(
            got=f"a GPT of positions {knobs['positions']!r}, to export",
            want="'learned': GPT-2 has no others",
        )
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": vocab_size,
        "n_layer": knobs["layers"],
        "n_embd": knobs["width"],
        "n_head": knobs["heads"],
        "n_inner": knobs["mlp"] or 4 * knobs["width"],
        "n_positions": knobs["length"],
        "layer_norm_epsilon": knobs["epsilon"],
        "activation_function": "gelu_new",
        "tie_word_embeddings": True,
    }


def _tensors(knobs: dict[str, Any]) -> tuple[Tensor, ...]:
    del knobs
    ours, theirs = "stack/layer", "transformer.h.{layer}"
    joined = tuple(f"{ours}/attention/{p}" for p in ("query", "key", "value"))
    table = [
        Tensor("embed/embedding", "transformer.wte.weight", "vd -> vd"),
        Tensor("positions/embedding", "transformer.wpe.weight", "sd -> sd"),
        # Theirs is one product for queries, keys and values.
        Tensor(
            tuple(f"{name}/kernel" for name in joined),
            f"{theirs}.attn.c_attn.weight",
            "d(qnh) -> qdnh",
        ),
        Tensor(
            tuple(f"{name}/bias" for name in joined),
            f"{theirs}.attn.c_attn.bias",
            "(qnh) -> qnh",
        ),
    ]
    for mine, its, axes, bias in (
        ("attention/out", "attn.c_proj", "(nh)d -> nhd", "d -> d"),
        ("mlp/up", "mlp.c_fc", "df -> df", "f -> f"),
        ("mlp/down", "mlp.c_proj", "fd -> fd", "d -> d"),
    ):
        table.append(Tensor(f"{ours}/{mine}/kernel", f"{theirs}.{its}.weight", axes))
        table.append(Tensor(f"{ours}/{mine}/bias", f"{theirs}.{its}.bias", bias))
    norms = {
        f"{ours}/attention_norm": f"{theirs}.ln_1",
        f"{ours}/mlp_norm": f"{theirs}.ln_2",
        "final_norm": "transformer.ln_f",
    }
    for mine, its in norms.items():
        table.append(Tensor(f"{mine}/scale", f"{its}.weight", "d -> d"))
        table.append(Tensor(f"{mine}/bias", f"{its}.bias", "d -> d"))
    return tuple(table)


HF = Dialect(
    model_types=("gpt2",),
    knobs=_knobs,
    config=_config,
    tensors=_tensors,
    extras=(r".*\.attn\.(masked_)?bias",),  # masks that old files carry
    copies=((HEAD, "transformer.wte.weight"),),
    defaults={"gpt2": {"layer_norm_epsilon": 1e-5, "n_positions": 1024}},
)

"""A mixture of experts: a Llama whose feed-forward layers are many, few for a token.

The layouts are those of Mixtral (arXiv:2401.04088) and, with `qk_norm`, of Qwen 3 MoE
(2505.09388). Every layer has a router and `experts` SwiGLU networks of width `mlp`;
`llm/nn/experts.py` says how tokens reach them and what keeps the loads even. The
router's losses are in `Output.sums`, summed over layers, with their coefficients.

`B batch, T query, S key, D width, F mlp, N heads, K kv heads, H head dim, E experts,
V vocab`

    model = make(vocab_size=4096, layers=4, width=256, mlp=256, experts=8, top_k=2)
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.errors import InputError
from llm.knobs import Above0, Amount, Positive
from llm.nn import hf_names
from llm.nn.attention_layer import Attention
from llm.nn.contract import Inputs, Output
from llm.nn.dropout import Dropout
from llm.nn.embedding import Embed
from llm.nn.experts import MoE, check_experts
from llm.nn.hf_names import Dialect, Tensor, require
from llm.nn.model import Decoder, ModelConfig, check_decoder, maker
from llm.nn.norm import RMSNorm
from llm.nn.positions import rope_of
from llm.nn.stack import Stack, in_turn
from llm.precision import Policy

KIND = "causal"
TINY = {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "mlp": 64,
        "experts": 4}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """The knobs of a mixture of experts, beside those of all models."""

    layers: Positive = 4
    width: Positive = 256
    heads: Positive = 4
    kv_heads: Positive = 2
    head_dim: Positive = 64
    mlp: Positive = 352  # of one expert
    experts: Positive = 8
    top_k: Positive = 2  # experts that a token goes through
    renormalise: bool = True  # so that the shares of a token's experts sum to 1
    # In training, an expert takes at most `capacity` times its even part of an
    # example's tokens; 0 is all that choose it.
    capacity: Amount = 0.0
    balance: Amount = 0.01  # coefficient of the balance loss
    router_z: Amount = 0.001  # and of the router's z-loss
    qk_norm: bool = True
    windows: tuple = ()  # keys that a query of each layer sees, in turn; 0 is all
    tied: bool = False
    rope_base: Above0 = 10_000.0
    rope_scaling: tuple = ()  # see llm/nn/positions.py
    epsilon: Amount = 1e-6
    residual_scale: Amount = 0.0  # of what ends a branch, in units of 1/sqrt(fan-in)
    embed_scale: Amount = 0.02  # standard deviation of the initial embeddings

    def check(self) -> None:
        """Raises InputError for sizes that cannot be built."""
        check_experts(self.experts, self.top_k)
        check_decoder(self)


class Block(nn.Module):
    """Attention and experts, each behind a norm and added to the stream."""

    cfg: Config
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, each, inputs: Inputs, train: bool, capture=()):
        window, load_E = each
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
                residual_scale=cfg.residual_scale,
                name="attention",
            )
            turn = rope_of(cfg, inputs.positions_BT, policy)
            y_BTD, cache, noted = attention(y_BTD, cache, turn, inputs, capture, window)
            x_BTD = x_BTD + drop(y_BTD)
        with jax.named_scope("mlp"):
            y_BTD = RMSNorm(cfg.epsilon, name="mlp_norm")(x_BTD)
            y_BTD, figures = self._experts()(y_BTD, inputs.segments_BT, train, load_E)
            x_BTD = x_BTD + drop(y_BTD)
        if "residual" in capture:
            noted["residual"] = x_BTD
        return x_BTD, cache, noted | figures

    def _experts(self):
        cfg = self.cfg
        return MoE(
            cfg.experts,
            cfg.top_k,
            cfg.mlp,
            self.policy,
            renormalise=cfg.renormalise,
            capacity=cfg.capacity,
            balance=cfg.balance,
            router_z=cfg.router_z,
            residual_scale=cfg.residual_scale,
            name="mlp",
        )


class MoELlama(Decoder):
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
        each = in_turn(self.cfg.windows, self.cfg.layers), inputs.load_LE
        inputs = inputs._replace(load_LE=None)
        x_BTD, cache, seen = self.stack(x_BTD, cache, each, inputs, train, capture)
        hidden_BTD = self.final_norm(x_BTD)
        if self.is_initializing():
            self.head(hidden_BTD)
        return Output(hidden_BTD, cache, *_apart(seen, inputs.segments_BT))


make = maker(MoELlama, Config)


def _apart(noted, segments_BT):
    """(sums, seen) of what is noted of the layers."""
    tokens = (segments_BT > 0).sum().astype(jnp.float32)
    seen = {k: v for k, v in noted.items() if k in ("attention", "residual")}
    load_LE = noted.pop("expert_load")
    sums = {}
    for name in sorted(noted.keys() - seen.keys()):
        # Each layer's loss counts; figures are means over the layers.
        over = jnp.sum if name.endswith("_loss") else jnp.mean
        sums[name] = (over(noted[name]), tokens)
    sums["expert_load"] = (load_LE, tokens)
    return sums, seen


def _knobs(config: dict[str, Any]) -> dict[str, Any]:
    kind = config["model_type"]
    require(
        config,
        hidden_act="silu",
        attention_bias=False,
        decoder_sparse_step=1,
        mlp_only_layers=([], None),
        router_jitter_noise=0.0,
    )
    qwen = kind == "qwen3_moe"
    count = "num_experts" if "num_experts" in config else "num_local_experts"
    window = config.get("sliding_window")
    sliding = window and (not qwen or config.get("use_sliding_window", False))
    return {
        **hf_names.decoder_knobs(config),
        **hf_names.rope_knobs(config),
        "mlp": config["moe_intermediate_size" if qwen else "intermediate_size"],
        "experts": config[count],
        "top_k": config["num_experts_per_tok"],
        "renormalise": config.get("norm_topk_prob", False) if qwen else True,
        "qk_norm": qwen,
        "windows": (window,) if sliding else (),
        "tied": config.get("tie_word_embeddings", False),
    }


def _config(knobs: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    k, qwen = knobs, knobs["qk_norm"]
    if not qwen and not k["renormalise"]:
        raise InputError(
            got="a Mixtral (no qk_norm) without renormalise",
            want="one of them, to be exported",
        )
    if len(set(k["windows"])) > 1 or 0 in k["windows"]:
        raise InputError(
            got=f"windows {k['windows']}", want="one window, to be exported"
        )
    config = {
        "architectures": ["Qwen3MoeForCausalLM" if qwen else "MixtralForCausalLM"],
        "model_type": "qwen3_moe" if qwen else "mixtral",
        **hf_names.decoder_config(k, vocab_size),
        "hidden_act": "silu",
        "tie_word_embeddings": k["tied"],
        "num_experts_per_tok": k["top_k"],
        "router_aux_loss_coef": k["balance"],
        "sliding_window": k["windows"][0] if k["windows"] else None,
    }
    if not qwen:
        return config | {"num_local_experts": k["experts"]}
    return config | {
        "num_experts": k["experts"],
        "moe_intermediate_size": k["mlp"],
        "norm_topk_prob": k["renormalise"],
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "attention_bias": False,
        "use_sliding_window": bool(k["windows"]),
    }


def _tensors(knobs: dict[str, Any]) -> tuple[Tensor, ...]:
    ours, theirs = "stack/layer", "model.layers.{layer}"
    norms = {
        "attention_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
    }
    if qwen := knobs["qk_norm"]:
        mlp, names = f"{theirs}.mlp", ("gate_proj", "up_proj", "down_proj")
    else:
        mlp, names = f"{theirs}.block_sparse_moe", ("w1", "w3", "w2")
    layer = [
        *hf_names.norm_tensors(ours, theirs, norms),
        *hf_names.attention_tensors(
            f"{ours}/attention", f"{theirs}.self_attn", qk_norm="h -> h" if qwen else ""
        ),
        Tensor(f"{ours}/mlp/router/kernel", f"{mlp}.gate.weight", "ed -> de"),
        *hf_names.gated_tensors(f"{ours}/mlp", f"{mlp}.experts.{{expert}}", names),
    ]
    return hf_names.decoder_tensors(layer, tied=knobs["tied"])


HF = Dialect(
    model_types=("mixtral", "qwen3_moe"),
    knobs=_knobs,
    config=_config,
    tensors=_tensors,
    copies=hf_names.TIED_HEAD,
    defaults={
        "mixtral": {
            "rms_norm_eps": 1e-5, "num_key_value_heads": 8, "rope_theta": 1e6,
            "num_experts_per_tok": 2,
        },
        "qwen3_moe": {
            "rms_norm_eps": 1e-6, "num_key_value_heads": 4, "num_experts_per_tok": 8,
            "sliding_window": 4096,
        },
    },
)  # fmt: skip

"""A mixture of experts: a Llama whose feed-forward layers are many, few for a token.

The layouts are those of Mixtral (arXiv:2401.04088) and, with `qk_norm`, of Qwen 3 MoE
(2505.09388). Every layer has a router and `experts` SwiGLU networks of width `mlp`;
`llm/nn/experts.py` says how tokens reach them and what keeps the loads even. The
router's losses are in `Output.sums`, summed over layers, with their coefficients.

`B batch, T query, S key, D width, F mlp, N heads, K kv heads, H head dim, E experts,
V vocab`

    model = make(vocab_size=4096, layers=4, width=256, mlp=256, experts=8, top_k=2)
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.errors import InputError
from llm.losses import Head
from llm.nn import cache as caches
from llm.nn import hf_names
from llm.nn.attention import attention
from llm.nn.contract import Inputs, Output
from llm.nn.dense import Dense
from llm.nn.dropout import Dropout
from llm.nn.embedding import Embed
from llm.nn.experts import MoE, check_experts
from llm.nn.hf_names import Dialect, Tensor, require
from llm.nn.norm import RMSNorm
from llm.nn.positions import rope, rope_frequencies, rope_gain
from llm.nn.scores import attention_weights
from llm.nn.stack import Stack, check_decoder, check_stack, in_turn
from llm.nn.unembed import Unembed
from llm.precision import FLOAT32, Policy

KIND = "causal"
TINY = {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "mlp": 64,
        "experts": 4}  # fmt: skip


def make(
    *,
    vocab_size: int,
    layers: int = 4,
    width: int = 256,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 64,
    mlp: int = 352,
    experts: int = 8,
    top_k: int = 2,
    renormalise: bool = True,
    capacity: float = 0.0,
    balance: float = 0.01,
    router_z: float = 0.001,
    qk_norm: bool = True,
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
) -> "MoELlama":
    """A mixture of experts; `how` and `remat` are choices of `llm/nn/stack.py`.

    Args:
      mlp: width of one expert.
      top_k: experts that a token goes through.
      renormalise: whether the shares of a token's experts sum to 1.
      capacity: in training, an expert takes at most `capacity` times its even part of
        an example's tokens; 0 is all that choose it.
      balance, router_z: coefficients of the balance loss and of the router's z-loss.
      windows: how many keys a query of each layer sees, in turn (0 is all); () is all
        for all.
      rope_scaling: see `llm/nn/positions.py`.
      residual_scale: initial kernels that end a branch, in units of 1/sqrt(fan-in).
      embed_scale: standard deviation of the initial embeddings.
    """
    check_stack(layers, how, remat)
    check_experts(experts, top_k, capacity)
    check_decoder(
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp=mlp,
        dropout=dropout,
    )
    return MoELlama(
        vocab_size=vocab_size,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp=mlp,
        experts=experts,
        top_k=top_k,
        renormalise=renormalise,
        capacity=capacity,
        balance=balance,
        router_z=router_z,
        qk_norm=qk_norm,
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
        q_BTNH = rope(q_BTNH, positions_BT, frequency_H, gain)
        k_BTKH = rope(k_BTKH, positions_BT, frequency_H, gain)
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
    """Attention and experts, each behind a norm and added to the stream."""

    attention: dict[str, Any]
    mlp: dict[str, Any]
    epsilon: float
    dropout: float

    @nn.compact
    def __call__(self, x_BTD, cache, each, inputs: Inputs, train: bool, capture=()):
        window, load_E = each
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
            y_BTD, figures = MoE(**self.mlp, name="mlp")(
                y_BTD, inputs.segments_BT, train, load_E
            )
            x_BTD = x_BTD + drop(y_BTD)
        if "residual" in capture:
            noted["residual"] = x_BTD
        return x_BTD, cache, noted | figures


class MoELlama(nn.Module):
    """See `make`. The parameters are float32."""

    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    experts: int
    top_k: int
    renormalise: bool
    capacity: float
    balance: float
    router_z: float
    qk_norm: bool
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
            "rope_base": self.rope_base,
            "rope_scaling": self.rope_scaling,
            "epsilon": self.epsilon,
            "residual_scale": self.residual_scale,
            "policy": self.policy,
        }
        mlp = {
            "experts": self.experts,
            "top_k": self.top_k,
            "mlp": self.mlp,
            "renormalise": self.renormalise,
            "capacity": self.capacity,
            "balance": self.balance,
            "router_z": self.router_z,
            "residual_scale": self.residual_scale,
            "policy": self.policy,
        }
        block = {
            "attention": attention,
            "mlp": mlp,
            "epsilon": self.epsilon,
            "dropout": self.dropout,
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
        each = in_turn(self.windows, self.layers), inputs.load_LE
        inputs = inputs._replace(load_LE=None)
        x_BTD, cache, seen = self.stack(x_BTD, cache, each, inputs, train, capture)
        hidden_BTD = self.final_norm(x_BTD)
        if self.is_initializing():
            self.head(hidden_BTD)
        return Output(hidden_BTD, cache, *_apart(seen, inputs.segments_BT))

    def head(self, hidden_BTD: jax.Array) -> Head:
        """What makes logits of the hidden states."""
        kernel_DV = self.embed.embedding.T if self.tied else self.unembed.kernel
        return Head(hidden_BTD, kernel_DV)

    def init_cache(self, batch: int, length: int) -> caches.KeyValues:
        """An empty cache for `batch` rows of at most `length` tokens."""
        shape_BSKH = (batch, length, self.kv_heads, self.head_dim)
        return caches.empty(self.layers, shape_BSKH, self.policy.activations)


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

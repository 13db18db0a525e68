"""GPT-2: a pre-norm decoder with LayerNorm, GELU, biases and learned positions.

Radford et al. 2019, "Language models are unsupervised multitask learners". The head is
the embedding. A text longer than `length` is refused where it is asked for. To compare
them, positions may be of other kinds: sinusoidal, ALiBi, or none at all.

`B batch, T query, S key, D width, F mlp, N heads, H head dim, V vocab`

    model = make(vocab_size=50304, layers=12, width=768, heads=12)
"""

from typing import Any

import flax.linen as nn
import jax

from llm.errors import InputError
from llm.losses import Head
from llm.nn import cache as caches
from llm.nn.attention import attention
from llm.nn.contract import Inputs, Output
from llm.nn.dense import Dense
from llm.nn.dropout import Dropout
from llm.nn.embedding import Embed
from llm.nn.hf_names import HEAD, Dialect, Tensor, require
from llm.nn.mlp import MLP
from llm.nn.norm import LayerNorm
from llm.nn.positions import Learned, alibi, sinusoidal
from llm.nn.scores import attended, attention_weights
from llm.nn.stack import Stack, check_stack
from llm.precision import FLOAT32, Policy

KIND = "causal"
POSITIONS = ("learned", "sinusoidal", "alibi", "none")
TINY = {"layers": 2, "width": 64, "heads": 4, "length": 128}


def make(
    *,
    vocab_size: int,
    layers: int = 12,
    width: int = 768,
    heads: int = 12,
    mlp: int = 0,
    positions: str = "learned",
    length: int = 1024,
    epsilon: float = 1e-5,
    dropout: float = 0.0,
    how: str = "scan",
    remat: str = "none",
    policy: Policy = FLOAT32,
) -> "GPT":
    """A GPT-2; `how` and `remat` are choices of `llm/nn/stack.py`.

    Args:
      mlp: width of the feed-forward layers; 0 is four times `width`.
      positions: `learned`, as in GPT-2; `sinusoidal` (arXiv:1706.03762); `alibi`, a
        penalty on distance (2108.12409); or `none`: only causality tells them.
      length: positions that are learned.
    """
    check_stack(layers, how, remat)
    if positions not in POSITIONS:
        raise InputError(
            got=f"model.positions {positions!r}", want=f"one of {', '.join(POSITIONS)}"
        )
    if positions == "sinusoidal" and width % 2:
        raise InputError(got=f"width {width}", want="an even one, for sinusoidal")
    if width % heads:
        raise InputError(got=f"width {width}", want=f"a multiple of {heads} heads")
    return GPT(
        vocab_size=vocab_size,
        layers=layers,
        width=width,
        heads=heads,
        mlp=mlp or 4 * width,
        positions=positions,
        length=length if positions == "learned" else 0,
        epsilon=epsilon,
        dropout=dropout,
        how=how,
        remat=remat,
        policy=policy,
    )


class Attention(nn.Module):
    """Self-attention with biases."""

    heads: int
    positions: str
    residual_scale: float
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, inputs: Inputs, capture):
        D, N = x_BTD.shape[-1], self.heads
        H = D // N

        def project(name):
            return Dense(
                "BTD,DNH->BTNH",
                shape=(D, N, H),
                axes=("embed", "heads", "head_dim"),
                policy=self.policy,
                bias=True,
                name=name,
            )(x_BTD)

        q_BTNH, k_BTNH, v_BTNH = project("query"), project("key"), project("value")
        context, new = caches.extend(cache, k_BTNH, v_BTNH, inputs)
        if self.positions == "alibi" or "attention" in capture:
            bias_BNTS = None
            if self.positions == "alibi":
                reach = context.reach
                bias_BNTS = alibi(N, reach.positions_BT, reach.positions_BS)
            weights_BNTS = attention_weights(
                q_BTNH, context, bias_BNTS=bias_BNTS, policy=self.policy
            )
        if self.positions == "alibi":
            o_BTNH = attended(weights_BNTS, context, self.policy)
        else:
            o_BTNH = attention(q_BTNH, context, policy=self.policy)
        o_BTNH = nn.with_logical_constraint(
            o_BTNH, ("batch", "length", "heads", "head_dim")
        )
        noted = {"attention": weights_BNTS} if "attention" in capture else {}
        out_BTD = Dense(
            "BTNH,NHD->BTD",
            shape=(N, H, D),
            axes=("heads", "head_dim", "embed"),
            policy=self.policy,
            scale=self.residual_scale,
            bias=True,
            name="out",
        )(o_BTNH)
        return out_BTD, new, noted


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the stream."""

    heads: int
    positions: str
    mlp: int
    epsilon: float
    dropout: float
    residual_scale: float
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, each, inputs: Inputs, train: bool, capture=()):
        del each
        x_BTD = nn.with_logical_constraint(x_BTD, ("batch", "stream", "width"))

        def drop(y_BTD):
            return Dropout(self.dropout)(y_BTD, inputs.index_B, train)

        with jax.named_scope("attention"):
            y_BTD = LayerNorm(self.epsilon, name="attention_norm")(x_BTD)
            y_BTD, cache, noted = Attention(
                self.heads,
                self.positions,
                self.residual_scale,
                self.policy,
                name="attention",
            )(y_BTD, cache, inputs, capture)
            x_BTD = x_BTD + drop(y_BTD)
        with jax.named_scope("mlp"):
            y_BTD = LayerNorm(self.epsilon, name="mlp_norm")(x_BTD)
            y_BTD = MLP(
                self.mlp,
                self.policy,
                residual_scale=self.residual_scale,
                name="mlp",
            )(y_BTD)
            x_BTD = x_BTD + drop(y_BTD)
        if "residual" in capture:
            noted["residual"] = x_BTD
        return x_BTD, cache, noted


class GPT(nn.Module):
    """See `make`. The parameters are float32."""

    vocab_size: int
    layers: int
    width: int
    heads: int
    mlp: int
    positions: str
    length: int
    epsilon: float
    dropout: float
    how: str
    remat: str
    policy: Policy

    @property
    def head_dim(self) -> int:
        """Of every head."""
        return self.width // self.heads

    def setup(self):
        self.embed = Embed(self.vocab_size, self.width, self.policy, scale=0.02)
        if self.positions == "learned":
            self.learned = Learned(
                self.length, self.width, scale=0.01, name="positions"
            )
        self.embed_dropout = Dropout(self.dropout)
        block = {
            "heads": self.heads,
            "positions": self.positions,
            "mlp": self.mlp,
            "epsilon": self.epsilon,
            "dropout": self.dropout,
            # Its authors divide by the root of the number of residual branches.
            "residual_scale": (2 * self.layers) ** -0.5,
            "policy": self.policy,
        }
        self.stack = Stack(Block, self.layers, block, self.how, self.remat)
        self.final_norm = LayerNorm(self.epsilon)

    def __call__(
        self,
        inputs: Inputs,
        cache: Any = None,
        train: bool = False,
        capture: tuple[str, ...] = (),
    ):
        """Hidden states of a batch, and its keys and values for the cache."""
        x_BTD = self.embed(inputs.tokens_BT)
        if self.positions == "learned":
            x_BTD = x_BTD + self.learned(inputs.positions_BT).astype(x_BTD.dtype)
        elif self.positions == "sinusoidal":
            x_BTD = x_BTD + self._waves(inputs.positions_BT).astype(x_BTD.dtype)
        x_BTD = self.embed_dropout(x_BTD, inputs.index_B, train)
        x_BTD, cache, seen = self.stack(x_BTD, cache, None, inputs, train, capture)
        return Output(self.final_norm(x_BTD), cache, seen=seen)

    def _waves(self, positions_BT):
        # As large as the embeddings, which start small.
        return 0.02 * sinusoidal(positions_BT, self.width)

    def head(self, hidden_BTD: jax.Array) -> Head:
        """What makes logits of the hidden states."""
        return Head(hidden_BTD, self.embed.embedding.T)

    def init_cache(self, batch: int, length: int) -> caches.KeyValues:
        """An empty cache for `batch` rows of at most `length` tokens."""
        shape_BSNH = (batch, length, self.heads, self.head_dim)
        return caches.empty(self.layers, shape_BSNH, self.policy.activations)


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

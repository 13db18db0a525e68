"""BERT: a post-norm encoder that sees both ways, with its masked-token head.

arXiv:1810.04805. Tokens, learned positions and the type of each token (first or second
text) are added and normalised; each layer normalises after its residual. Beside the
head there are the pooler of the first token and the next-sentence classifier, for
those who load them: `pool(hidden)` and `next_sentence(hidden)`.

`B batch, T tokens, D width, F mlp, N heads, H head dim, V vocab`
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.errors import InputError
from llm.knobs import Amount, Count, Positive
from llm.losses import Head
from llm.nn.attention_layer import attend, heads_of, joined
from llm.nn.context import Context, Reach
from llm.nn.contract import Inputs, Output
from llm.nn.dense import Dense
from llm.nn.dropout import Dropout
from llm.nn.embedding import Embed
from llm.nn.hf_names import Dialect, Tensor, require
from llm.nn.mlp import ACTIVATIONS, MLP
from llm.nn.model import Model, ModelConfig, maker
from llm.nn.norm import LayerNorm
from llm.nn.positions import Learned
from llm.nn.stack import Stack
from llm.precision import Policy

KIND = "masked"
TINY = {"layers": 2, "width": 64, "heads": 4, "length": 128}
_STD = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """The knobs of a BERT, beside those of all models."""

    layers: Positive = 12
    width: Positive = 768
    heads: Positive = 12
    mlp: Count = 0  # 0 is four times the width
    length: int = 512  # positions that it knows
    types: int = 2  # kinds of token, 2 for pairs of texts
    pooler: bool = False  # whether there are a pooler and a next-sentence classifier
    mlm_head: bool = True  # to predict masked tokens; without it, hidden states only
    epsilon: Amount = 1e-12

    def check(self) -> None:
        """Raises InputError for heads that do not divide the width."""
        if self.width % self.heads:
            raise InputError(
                got=f"width {self.width}", want=f"a multiple of {self.heads} heads"
            )

    @property
    def context(self) -> int:
        """Positions that it knows."""
        return self.length

    @property
    def head_dim(self) -> int:
        """Of every head."""
        return self.width // self.heads


class Attention(nn.Module):
    """Self-attention over the whole segment, with biases."""

    cfg: Config
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, inputs: Inputs, capture):
        cfg, policy = self.cfg, self.policy
        shape_NH = (cfg.heads, cfg.head_dim)
        q_BTNH, k_BTNH, v_BTNH = (
            heads_of(name, x_BTD, shape_NH, policy, bias=True)
            for name in ("query", "key", "value")
        )
        positions_BT, segments_BT = inputs.positions_BT, inputs.segments_BT
        reach = Reach(positions_BT, segments_BT, positions_BT, segments_BT)
        context = Context((k_BTNH,), (v_BTNH,), reach)
        o_BTNH, noted = attend(q_BTNH, context, capture, policy, causal=False)
        return joined(o_BTNH, cfg.width, policy, bias=True), noted


class Block(nn.Module):
    """Attention and feed-forward, each added to the stream and normalised with it."""

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
            y_BTD, noted = Attention(cfg, policy, name="attention")(
                x_BTD, inputs, capture
            )
            x_BTD = LayerNorm(cfg.epsilon, name="attention_norm")(x_BTD + drop(y_BTD))
        with jax.named_scope("mlp"):
            mlp = cfg.mlp or 4 * cfg.width
            y_BTD = MLP(mlp, policy, activation="gelu", name="mlp")(x_BTD)
            x_BTD = LayerNorm(cfg.epsilon, name="mlp_norm")(x_BTD + drop(y_BTD))
        if "residual" in capture:
            noted["residual"] = x_BTD
        return x_BTD, cache, noted


class BERT(Model):
    """Three embeddings, blocks, and heads; the parameters are float32."""

    def setup(self):
        cfg, policy = self.cfg, self.policy
        D, V = cfg.width, cfg.vocab_size
        self.embed = Embed(V, D, policy, scale=_STD)
        self.positions = Learned(cfg.length, D, scale=_STD)
        self.token_types = Embed(cfg.types, D, policy, scale=_STD)
        self.embed_norm = LayerNorm(cfg.epsilon)
        self.embed_dropout = Dropout(cfg.dropout)
        self.stack = Stack(Block, cfg, policy)
        dense = functools.partial(Dense, "BTD,DF->BTF", policy=policy, bias=True)
        if cfg.mlm_head:
            self.head_dense = dense((D, D), ("embed", "width"))
            self.head_norm = LayerNorm(cfg.epsilon)
            zeros = nn.with_logical_partitioning(
                nn.initializers.zeros_init(), ("vocab",)
            )
            self.head_bias = self.param("head_bias", zeros, (V,), jnp.float32)
        if cfg.pooler:
            self.pool_dense = dense((D, D), ("embed", "width"))
            self.next_dense = dense((D, 2), ("embed", "classes"))

    def __call__(self, inputs: Inputs, cache=None, train=False, capture=()) -> Output:
        """Hidden states of a batch; `cache` must be None, there is no decoding."""
        types_BT = inputs.types_BT
        types_BT = jnp.zeros_like(inputs.tokens_BT) if types_BT is None else types_BT
        x_BTD = self.embed(inputs.tokens_BT) + self.token_types(types_BT)
        x_BTD = x_BTD + self.positions(inputs.positions_BT).astype(x_BTD.dtype)
        x_BTD = self.embed_dropout(self.embed_norm(x_BTD), inputs.index_B, train)
        x_BTD, _, seen = self.stack(x_BTD, None, None, inputs, train, capture)
        if self.is_initializing():
            self.head(x_BTD)
            if self.cfg.pooler:
                self.next_sentence(x_BTD)
        return Output(x_BTD, cache, seen=seen)

    def head(self, hidden_BTD: jax.Array) -> Head | None:
        """What makes logits of masked tokens; None without `mlm_head`."""
        if not self.cfg.mlm_head:
            return None
        y_BTD = self.head_norm(ACTIVATIONS["gelu"](self.head_dense(hidden_BTD)))
        return Head(y_BTD, self.embed.embedding.T, self.head_bias)

    def pool(self, hidden_BTD: jax.Array) -> jax.Array:
        """The first token of each row, through tanh: BD."""
        return jnp.tanh(self.pool_dense(hidden_BTD[:, :1]))[:, 0]

    def next_sentence(self, hidden_BTD: jax.Array) -> jax.Array:
        """Logits of "the second text follows" and "it does not": B2."""
        return self.next_dense(self.pool(hidden_BTD)[:, None])[:, 0]


make = maker(BERT, Config)


def _knobs(config: dict[str, Any]) -> dict[str, Any]:
    require(
        config,
        hidden_act="gelu",
        position_embedding_type="absolute",
        is_decoder=False,
        add_cross_attention=False,
        tie_word_embeddings=True,
    )
    (kind,) = config.get("architectures") or ["BertForPreTraining"]
    heads = {
        "BertForPreTraining": {"pooler": True, "mlm_head": True},
        "BertForMaskedLM": {"pooler": False, "mlm_head": True},
        "BertModel": {"pooler": False, "mlm_head": False},
    }
    if kind not in heads:
        raise InputError(got=f"a {kind}", want=f"one of {', '.join(heads)}")
    return {
        "vocab_size": config["vocab_size"],
        "layers": config["num_hidden_layers"],
        "width": config["hidden_size"],
        "heads": config["num_attention_heads"],
        "mlp": config["intermediate_size"],
        "length": config["max_position_embeddings"],
        "types": config["type_vocab_size"],
        "epsilon": config["layer_norm_eps"],
        **heads[kind],
    }


def _config(knobs: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    k = knobs
    if k["pooler"] and not k["mlm_head"]:
        raise InputError(
            got="a BERT with pooler and without mlm_head", want="both, to be exported"
        )
    kind = "BertForPreTraining" if k["pooler"] else "BertForMaskedLM"
    return {
        "architectures": [kind if k["mlm_head"] else "BertModel"],
        "model_type": "bert",
        "vocab_size": vocab_size,
        "num_hidden_layers": k["layers"],
        "hidden_size": k["width"],
        "num_attention_heads": k["heads"],
        "intermediate_size": k["mlp"] or 4 * k["width"],
        "max_position_embeddings": k["length"],
        "type_vocab_size": k["types"],
        "layer_norm_eps": k["epsilon"],
        "hidden_act": "gelu",
    }


def _tensors(knobs: dict[str, Any]) -> tuple[Tensor, ...]:
    ours, theirs = "stack/layer", "bert.encoder.layer.{layer}"
    table = [
        Tensor("embed/embedding", "bert.embeddings.word_embeddings.weight", "vd -> vd"),
        Tensor(
            "positions/embedding",
            "bert.embeddings.position_embeddings.weight",
            "sd -> sd",
        ),
        Tensor(
            "token_types/embedding",
            "bert.embeddings.token_type_embeddings.weight",
            "kd -> kd",
        ),
    ]
    dense = [
        *(
            (f"{ours}/attention/{p}", f"{theirs}.attention.self.{p}",
             "(nh)d -> dnh", "(nh) -> nh")
            for p in ("query", "key", "value")
        ),
        (f"{ours}/attention/out", f"{theirs}.attention.output.dense",
         "d(nh) -> nhd", "d -> d"),
        (f"{ours}/mlp/up", f"{theirs}.intermediate.dense", "fd -> df", "f -> f"),
        (f"{ours}/mlp/down", f"{theirs}.output.dense", "df -> fd", "d -> d"),
    ]  # fmt: skip
    norms = [
        ("embed_norm", "bert.embeddings.LayerNorm"),
        (f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm"),
        (f"{ours}/mlp_norm", f"{theirs}.output.LayerNorm"),
    ]
    if knobs["mlm_head"]:
        table.append(Tensor("head_bias", "cls.predictions.bias", "v -> v"))
        its = "cls.predictions.transform"
        dense.append(("head_dense", f"{its}.dense", "ed -> de", "e -> e"))
        norms.append(("head_norm", f"{its}.LayerNorm"))
    if knobs["pooler"]:
        dense.append(("pool_dense", "bert.pooler.dense", "ed -> de", "e -> e"))
        dense.append(("next_dense", "cls.seq_relationship", "cd -> dc", "c -> c"))
    for mine, its, axes, bias in dense:
        table.append(Tensor(f"{mine}/kernel", f"{its}.weight", axes))
        table.append(Tensor(f"{mine}/bias", f"{its}.bias", bias))
    for mine, its in norms:
        table.append(Tensor(f"{mine}/scale", f"{its}.weight", "d -> d"))
        table.append(Tensor(f"{mine}/bias", f"{its}.bias", "d -> d"))
    return tuple(table)


HF = Dialect(
    model_types=("bert",),
    knobs=_knobs,
    config=_config,
    tensors=_tensors,
    extras=(r".*position_ids", r"bert\.pooler\..*"),  # the second where it is unused
    copies=(
        ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ),
    defaults={
        "bert": {
            "layer_norm_eps": 1e-12, "type_vocab_size": 2,
            "max_position_embeddings": 512,
        },
    },
)  # fmt: skip

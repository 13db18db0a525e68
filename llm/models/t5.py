"""T5: an encoder that sees both ways, and a decoder that reads it.

arXiv:1910.10683; with `gated` and an untied head, T5 1.1 (2002.05202). Pre-norm with
RMSNorm and no biases; scores are not scaled, and a learned bias of the distance, shared
by all layers of a stack, is the only notion of position.

`inputs` are the decoder's tokens, `inputs.source` what the encoder reads. Decoding with
a cache reads the source once: the keys and values that the decoder makes of it are in
the cache, and `inputs.source` is None from then on.

`B batch, T query, S key, D width, F mlp, N heads, H head dim, V vocab`
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.losses import Head
from llm.nn import cache as caches
from llm.nn import hf_names
from llm.nn.cache import KeyValues
from llm.nn.context import Reach
from llm.nn.contract import Inputs, Output
from llm.nn.dense import Dense
from llm.nn.dropout import Dropout
from llm.nn.embedding import Embed
from llm.nn.hf_names import Dialect, Tensor, require
from llm.nn.mlp import ACTIVATIONS, Gated
from llm.nn.norm import RMSNorm
from llm.nn.positions import relative_buckets
from llm.nn.scores import attended, attention_weights
from llm.nn.stack import Stack, check_stack
from llm.nn.unembed import Unembed
from llm.precision import FLOAT32, Policy

KIND = "encdec"
TINY = {"layers": 2, "width": 64, "heads": 4, "head_dim": 16, "mlp": 128}


def make(
    *,
    vocab_size: int,
    layers: int = 12,
    decoder_layers: int = 0,
    width: int = 768,
    heads: int = 12,
    head_dim: int = 64,
    mlp: int = 2048,
    buckets: int = 32,
    farthest: int = 128,
    gated: bool = True,
    tied: bool = False,
    scaled: bool = False,
    epsilon: float = 1e-6,
    dropout: float = 0.0,
    how: str = "scan",
    remat: str = "none",
    policy: Policy = FLOAT32,
) -> "T5":
    """A T5; `how` and `remat` are choices of `llm/nn/stack.py`.

    Args:
      layers: of the encoder; `decoder_layers` of the decoder, as many where 0.
      buckets: of distances, those beyond `farthest` share the last one.
      gated: GeGLU feed-forward layers (T5 1.1); else ReLU (T5 1.0).
      scaled: whether hidden states are divided by sqrt(width) before the head (T5 1.0).
    """
    check_stack(layers, how, remat)
    return T5(
        vocab_size=vocab_size,
        layers=layers,
        decoder_layers=decoder_layers or layers,
        width=width,
        heads=heads,
        head_dim=head_dim,
        mlp=mlp,
        buckets=buckets,
        farthest=farthest,
        gated=gated,
        tied=tied,
        scaled=scaled,
        epsilon=epsilon,
        dropout=dropout,
        how=how,
        remat=remat,
        policy=policy,
    )


class Cache(NamedTuple):
    """Own keys and values, those of the source, and the source's segments (1BS)."""

    own: KeyValues
    cross: KeyValues | None
    source_segments: jax.Array | None

    def insert(self, new: "Cache", inputs: Inputs) -> "Cache":
        """Adds own keys and values; those of the source where it was read."""
        own = self.own.insert(new.own, inputs)
        if new.cross is None:
            return self._replace(own=own)
        more = self.source_segments.shape[-1] - new.source_segments.shape[-1]
        segments_1BS = jnp.pad(new.source_segments, ((0, 0), (0, 0), (0, more)))
        return Cache(own, self.cross.replace(new.cross), segments_1BS)


class ReLU(nn.Module):
    """down(relu(up(x))), the feed-forward layer of T5 1.0."""

    mlp: int
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        D, F = x_BTD.shape[-1], self.mlp
        up = Dense("BTD,DF->BTF", (D, F), ("embed", "mlp"), self.policy, name="up")
        hidden_BTF = ACTIVATIONS["relu"](up(x_BTD))
        hidden_BTF = nn.with_logical_constraint(hidden_BTF, ("batch", "length", "mlp"))
        down = Dense("BTF,FD->BTD", (F, D), ("mlp", "embed"), self.policy, name="down")
        return down(hidden_BTF)


def _project(name, x_BTD, heads, head_dim, policy):
    return Dense(
        "BTD,DNH->BTNH",
        shape=(x_BTD.shape[-1], heads, head_dim),
        axes=("embed", "heads", "head_dim"),
        policy=policy,
        name=name,
    )(x_BTD)


def _out(o_BTNH, width, policy):
    o_BTNH = nn.with_logical_constraint(
        o_BTNH, ("batch", "length", "heads", "head_dim")
    )
    return Dense(
        "BTNH,NHD->BTD",
        shape=(*o_BTNH.shape[2:], width),
        axes=("heads", "head_dim", "embed"),
        policy=policy,
        name="out",
    )(o_BTNH)


class SelfAttention(nn.Module):
    """Attention of a text to itself, biased by distance."""

    heads: int
    head_dim: int
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, bias_BNTS, causal, inputs: Inputs):
        def project(name):
            return _project(name, x_BTD, self.heads, self.head_dim, self.policy)

        k_BTNH, v_BTNH = project("key"), project("value")
        context, new = caches.extend(cache, k_BTNH, v_BTNH, inputs)
        weights_BNTS = attention_weights(
            project("query"), context, causal=causal, scale=1.0,
            bias_BNTS=bias_BNTS, policy=self.policy,
        )  # fmt: skip
        o_BTNH = attended(weights_BNTS, context, self.policy)
        return _out(o_BTNH, x_BTD.shape[-1], self.policy), new, weights_BNTS


class CrossAttention(nn.Module):
    """Attention of the decoder to the source, or to what the cache holds of it."""

    heads: int
    head_dim: int
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, source_BSD, reach: Reach):
        def project(name, given):
            return _project(name, given, self.heads, self.head_dim, self.policy)

        new = None
        if source_BSD is not None:
            new = KeyValues.of(project("key", source_BSD), project("value", source_BSD))
        context = (new or cache).context(reach)
        weights_BNTS = attention_weights(
            project("query", x_BTD), context, causal=False, scale=1.0,
            policy=self.policy,
        )  # fmt: skip
        o_BTNH = attended(weights_BNTS, context, self.policy)
        return _out(o_BTNH, x_BTD.shape[-1], self.policy), new, weights_BNTS


class Block(nn.Module):
    """Attention, attention to a source if there is one, and feed-forward.

    Each is behind a norm and added to the stream.
    """

    attention: dict[str, Any]
    mlp: int
    gated: bool
    epsilon: float
    dropout: float
    causal: bool

    @nn.compact
    def __call__(
        self, x_BTD, cache, each, bias_BNTS, source, inputs, train: bool, capture=()
    ):
        del each
        policy = self.attention["policy"]
        x_BTD = nn.with_logical_constraint(x_BTD, ("batch", "stream", "width"))

        def drop(y_BTD):
            return Dropout(self.dropout)(y_BTD, inputs.index_B, train)

        own, cross = cache or (None, None)
        with jax.named_scope("attention"):
            y_BTD = RMSNorm(self.epsilon, name="attention_norm")(x_BTD)
            y_BTD, own, weights_BNTS = SelfAttention(
                **self.attention, name="attention"
            )(y_BTD, own, bias_BNTS, self.causal, inputs)
            x_BTD = x_BTD + drop(y_BTD)
        noted = {"attention": weights_BNTS}
        if source is not None:
            with jax.named_scope("cross"):
                y_BTD = RMSNorm(self.epsilon, name="cross_norm")(x_BTD)
                y_BTD, cross, weights_BNTS = CrossAttention(
                    **self.attention, name="cross"
                )(y_BTD, cross, *source)
                x_BTD = x_BTD + drop(y_BTD)
            noted["cross_attention"] = weights_BNTS
        with jax.named_scope("mlp"):
            y_BTD = RMSNorm(self.epsilon, name="mlp_norm")(x_BTD)
            if self.gated:
                layer = Gated(self.mlp, policy, activation="gelu_tanh", name="mlp")
            else:
                layer = ReLU(self.mlp, policy, name="mlp")
            x_BTD = x_BTD + drop(layer(y_BTD))
        noted["residual"] = x_BTD
        wanted = {"cross_attention" if n == "attention" else n for n in capture}
        noted = {n: x for n, x in noted.items() if n in wanted.union(capture)}
        return x_BTD, None if cache is None else (own, cross), noted


class Distances(nn.Module):
    """The bias of every distance, a number a head: BNTS."""

    buckets: int
    farthest: int
    heads: int
    both_ways: bool

    @nn.compact
    def __call__(self, positions_BT, positions_BS):
        init = nn.with_logical_partitioning(
            nn.initializers.normal(0.02), ("buckets", "heads")
        )
        shape = (self.buckets, self.heads)
        table_KN = self.param("embedding", init, shape, jnp.float32)
        ahead_BTS = positions_BT[:, :, None] - positions_BS[:, None, :]
        bucket_BTS = relative_buckets(
            ahead_BTS, self.buckets, self.farthest, self.both_ways
        )
        return jnp.take(table_KN, bucket_BTS, axis=0).transpose(0, 3, 1, 2)


class T5(nn.Module):
    """See `make`. The parameters are float32."""

    vocab_size: int
    layers: int
    decoder_layers: int
    width: int
    heads: int
    head_dim: int
    mlp: int
    buckets: int
    farthest: int
    gated: bool
    tied: bool
    scaled: bool
    epsilon: float
    dropout: float
    how: str
    remat: str
    policy: Policy

    def setup(self):
        self.embed = Embed(self.vocab_size, self.width, self.policy, scale=1.0)
        block = {
            "attention": {
                "heads": self.heads,
                "head_dim": self.head_dim,
                "policy": self.policy,
            },
            "mlp": self.mlp,
            "gated": self.gated,
            "epsilon": self.epsilon,
            "dropout": self.dropout,
        }

        def stack(layers, causal):
            return Stack(
                Block, layers, block | {"causal": causal}, self.how, self.remat
            )

        def distances(both_ways):
            return Distances(self.buckets, self.farthest, self.heads, both_ways)

        self.encoder = stack(self.layers, causal=False)
        self.decoder = stack(self.decoder_layers, causal=True)
        self.encoder_distances = distances(both_ways=True)
        self.decoder_distances = distances(both_ways=False)
        self.encoder_norm = RMSNorm(self.epsilon)
        self.final_norm = RMSNorm(self.epsilon)
        # One at each place, as a place draws the same mask however often it is asked.
        self.source_dropout = Dropout(self.dropout)
        self.encoder_dropout = Dropout(self.dropout)
        self.target_dropout = Dropout(self.dropout)
        self.decoder_dropout = Dropout(self.dropout)
        if not self.tied:
            self.unembed = Unembed(
                self.width, self.vocab_size, self.policy, name="head"
            )

    def encode(
        self, source: Inputs, train: bool = False, capture: tuple[str, ...] = ()
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Hidden states of the source, and what was asked for of them."""
        x_BSD = self.source_dropout(self.embed(source.tokens_BT), source.index_B, train)
        bias_BNSS = self.encoder_distances(source.positions_BT, source.positions_BT)
        x_BSD, _, seen = self.encoder(
            x_BSD, None, None, bias_BNSS, None, source, train, capture
        )
        x_BSD = self.encoder_dropout(self.encoder_norm(x_BSD), source.index_B, train)
        return x_BSD, {f"source_{name}": value for name, value in seen.items()}

    def __call__(
        self,
        inputs: Inputs,
        cache: Cache | None = None,
        train: bool = False,
        capture: tuple[str, ...] = (),
    ):
        """Hidden states of the decoder, and its keys and values for the cache."""
        source, source_BSD, seen = inputs.source, None, {}
        if source is None and cache is None:
            # Initialisation with plain inputs: a text is its own source.
            source = inputs
        if source is not None:
            source_BSD, seen = self.encode(source, train, capture)
            segments_BS = source.segments_BT
        else:
            segments_BS = cache.source_segments[0]
        held = None if cache is None else (cache.own, cache.cross)
        positions_BT = inputs.positions_BT
        positions_BS = caches.positions(held and cache.own, positions_BT)
        bias_BNTS = self.decoder_distances(positions_BT, positions_BS)
        reach = Reach(
            positions_BT, inputs.segments_BT, jnp.zeros_like(segments_BS), segments_BS
        )
        x_BTD = self.target_dropout(self.embed(inputs.tokens_BT), inputs.index_B, train)
        x_BTD, new, own_seen = self.decoder(
            x_BTD, held, None, bias_BNTS, (source_BSD, reach), inputs, train, capture
        )
        hidden_BTD = self.decoder_dropout(self.final_norm(x_BTD), inputs.index_B, train)
        if self.is_initializing():
            self.head(hidden_BTD)
        if cache is not None:
            new = Cache(*new, None if source is None else source.segments_BT[None])
        return Output(hidden_BTD, new, seen=own_seen | seen)

    def head(self, hidden_BTD: jax.Array) -> Head:
        """What makes logits of the hidden states."""
        if self.scaled:
            hidden_BTD = hidden_BTD * self.width**-0.5
        kernel_DV = self.embed.embedding.T if self.tied else self.unembed.kernel
        return Head(hidden_BTD, kernel_DV)

    def init_cache(self, batch: int, length: int, source_length: int = 0) -> Cache:
        """An empty cache for `batch` rows of `length` tokens and their sources."""

        def empty(slots):
            shape_BSNH = (batch, slots, self.heads, self.head_dim)
            return caches.empty(
                self.decoder_layers, shape_BSNH, self.policy.activations
            )

        segments_1BS = jnp.zeros((1, batch, source_length), jnp.int32)
        return Cache(empty(length), empty(source_length), segments_1BS)


def _knobs(config: dict[str, Any]) -> dict[str, Any]:
    require(
        config,
        feed_forward_proj=("relu", "gated-gelu"),
        is_encoder_decoder=True,
    )
    gated = config["feed_forward_proj"] == "gated-gelu"
    tied = config.get("tie_word_embeddings", True)
    return {
        "vocab_size": config["vocab_size"],
        "layers": config["num_layers"],
        "decoder_layers": config.get("num_decoder_layers") or config["num_layers"],
        "width": config["d_model"],
        "heads": config["num_heads"],
        "head_dim": config["d_kv"],
        "mlp": config["d_ff"],
        "buckets": config["relative_attention_num_buckets"],
        "farthest": config.get("relative_attention_max_distance", 128),
        "gated": gated,
        # Newer files say that it is tied in any case: what they hold decides.
        "tied": "lm_head.weight" not in config["tensors"],
        "scaled": config.get("scale_decoder_outputs", tied),
        "epsilon": config["layer_norm_epsilon"],
    }


def _config(knobs: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    k = knobs
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": vocab_size,
        "num_layers": k["layers"],
        "num_decoder_layers": k["decoder_layers"] or k["layers"],
        "d_model": k["width"],
        "num_heads": k["heads"],
        "d_kv": k["head_dim"],
        "d_ff": k["mlp"],
        "relative_attention_num_buckets": k["buckets"],
        "relative_attention_max_distance": k["farthest"],
        "feed_forward_proj": "gated-gelu" if k["gated"] else "relu",
        "tie_word_embeddings": k["tied"],
        "scale_decoder_outputs": k["scaled"],
        "layer_norm_epsilon": k["epsilon"],
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
    }


def _tensors(knobs: dict[str, Any]) -> tuple[Tensor, ...]:
    table = [Tensor("embed/embedding", "shared.weight", "vd -> vd")]
    for side in ("encoder", "decoder"):
        ours, theirs = f"{side}/layer", f"{side}.block.{{layer}}.layer"
        parts = {"attention": "0.SelfAttention"}
        if side == "decoder":
            parts["cross"] = "1.EncDecAttention"
        for part, its in parts.items():
            table += hf_names.attention_tensors(
                f"{ours}/{part}", f"{theirs}.{its}", ("q", "k", "v", "o")
            )
        turns = enumerate((*parts, "mlp"))
        norms = {f"{part}_norm": f"{at}.layer_norm" for at, part in turns}
        table += hf_names.norm_tensors(ours, theirs, norms)
        mlp = (f"{ours}/mlp", f"{theirs}.{len(parts)}.DenseReluDense")
        if knobs["gated"]:
            table += hf_names.gated_tensors(*mlp, ("wi_0", "wi_1", "wo"))
        else:
            table += [
                Tensor(f"{mlp[0]}/up/kernel", f"{mlp[1]}.wi.weight", "fd -> df"),
                Tensor(f"{mlp[0]}/down/kernel", f"{mlp[1]}.wo.weight", "df -> fd"),
            ]
        norm = "encoder_norm" if side == "encoder" else "final_norm"
        table.append(
            Tensor(f"{norm}/scale", f"{side}.final_layer_norm.weight", "d -> d")
        )
        its = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        table.append(Tensor(f"{side}_distances/embedding", its, "kn -> kn"))
    if not knobs["tied"]:
        table.append(Tensor("head/kernel", "lm_head.weight", "vd -> dv"))
    return tuple(table)


HF = Dialect(
    model_types=("t5",),
    knobs=_knobs,
    config=_config,
    tensors=_tensors,
    # A bias of old files that nothing uses.
    extras=(r".*EncDecAttention\.relative_attention_bias\.weight",),
    copies=(
        ("encoder.embed_tokens.weight", "shared.weight"),
        ("decoder.embed_tokens.weight", "shared.weight"),
    ),
    defaults={
        "t5": {
            "layer_norm_epsilon": 1e-6, "relative_attention_num_buckets": 32,
            "feed_forward_proj": "relu", "d_kv": 64,
        },
    },
)  # fmt: skip

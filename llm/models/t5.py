"""T5: an encoder that sees both ways, and a decoder that reads it.

arXiv:1910.10683; with `gated` and an untied head, T5 1.1 (2002.05202). Pre-norm with
RMSNorm and no biases; scores are not scaled, and a learned bias of the distance, shared
by all layers of a stack, is the only notion of position.

`inputs` are the decoder's tokens, `inputs.source` what the encoder reads. Decoding with
a cache reads the source once: the keys and values that the decoder makes of it are in
the cache, and `inputs.source` is None from then on.

`B batch, T query, S key, D width, F mlp, N heads, H head dim, V vocab`
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.knobs import Amount, Count, Positive
from llm.losses import Head
from llm.nn import cache as caches
from llm.nn import hf_names
from llm.nn.attention_layer import heads_of, joined
from llm.nn.cache import KeyValues
from llm.nn.context import Reach
from llm.nn.contract import Inputs, Output
from llm.nn.dropout import Dropout
from llm.nn.embedding import Embed
from llm.nn.hf_names import Dialect, Tensor, require
from llm.nn.mlp import MLP, Gated
from llm.nn.model import Decoder, ModelConfig, maker
from llm.nn.norm import RMSNorm
from llm.nn.positions import relative_buckets
from llm.nn.scores import attended, attention_weights
from llm.nn.stack import Stack
from llm.precision import Policy

KIND = "encdec"
TINY = {"layers": 2, "width": 64, "heads": 4, "head_dim": 16, "mlp": 128}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """The knobs of a T5, beside those of all models."""

    layers: Positive = 12  # of the encoder
    decoder_layers: Count = 0  # 0 is as many as of the encoder
    width: Positive = 768
    heads: Positive = 12
    head_dim: Positive = 64
    mlp: Positive = 2048
    buckets: Positive = 32  # of distances
    farthest: Positive = 128  # distances beyond it share the last bucket
    gated: bool = True  # GeGLU feed-forward layers (T5 1.1); else ReLU (T5 1.0)
    tied: bool = False
    scaled: bool = False  # hidden states by 1/sqrt(width) before the head (T5 1.0)
    epsilon: Amount = 1e-6

    @property
    def decoder_depth(self) -> int:
        """Layers of the decoder."""
        return self.decoder_layers or self.layers


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


class SelfAttention(nn.Module):
    """Attention of a text to itself, biased by distance."""

    cfg: Config
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, bias_BNTS, causal, inputs: Inputs):
        cfg, policy = self.cfg, self.policy

        def project(name):
            return heads_of(name, x_BTD, (cfg.heads, cfg.head_dim), policy)

        k_BTNH, v_BTNH = project("key"), project("value")
        context, new = caches.extend(cache, k_BTNH, v_BTNH, inputs)
        weights_BNTS = attention_weights(
            project("query"), context, causal=causal, scale=1.0,
            bias_BNTS=bias_BNTS, policy=policy,
        )  # fmt: skip
        o_BTNH = attended(weights_BNTS, context, policy)
        return joined(o_BTNH, cfg.width, policy), new, weights_BNTS


class CrossAttention(nn.Module):
    """Attention of the decoder to the source, or to what the cache holds of it."""

    cfg: Config
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, source_BSD, reach: Reach):
        cfg, policy = self.cfg, self.policy

        def project(name, x):
            return heads_of(name, x, (cfg.heads, cfg.head_dim), policy)

        new = None
        if source_BSD is not None:
            new = KeyValues.of(project("key", source_BSD), project("value", source_BSD))
        context = (new or cache).context(reach)
        weights_BNTS = attention_weights(
            project("query", x_BTD), context, causal=False, scale=1.0, policy=policy
        )
        o_BTNH = attended(weights_BNTS, context, policy)
        return joined(o_BTNH, cfg.width, policy), new, weights_BNTS


class Block(nn.Module):
    """Attention, attention to a source if there is one, and feed-forward.

    Each is behind a norm and added to the stream.
    """

    cfg: Config
    policy: Policy
    causal: bool

    @nn.compact
    def __call__(
        self, x_BTD, cache, each, bias_BNTS, source, inputs, train: bool, capture=()
    ):
        del each
        cfg, policy = self.cfg, self.policy
        x_BTD = nn.with_logical_constraint(x_BTD, ("batch", "stream", "width"))

        def drop(y_BTD):
            return Dropout(cfg.dropout)(y_BTD, inputs.index_B, train)

        own, cross = cache or (None, None)
        with jax.named_scope("attention"):
            y_BTD = RMSNorm(cfg.epsilon, name="attention_norm")(x_BTD)
            y_BTD, own, weights_BNTS = SelfAttention(cfg, policy, name="attention")(
                y_BTD, own, bias_BNTS, self.causal, inputs
            )
            x_BTD = x_BTD + drop(y_BTD)
        noted = {"attention": weights_BNTS}
        if source is not None:
            with jax.named_scope("cross"):
                y_BTD = RMSNorm(cfg.epsilon, name="cross_norm")(x_BTD)
                y_BTD, cross, weights_BNTS = CrossAttention(cfg, policy, name="cross")(
                    y_BTD, cross, *source
                )
                x_BTD = x_BTD + drop(y_BTD)
            noted["cross_attention"] = weights_BNTS
        with jax.named_scope("mlp"):
            y_BTD = RMSNorm(cfg.epsilon, name="mlp_norm")(x_BTD)
            if cfg.gated:
                layer = Gated(cfg.mlp, policy, activation="gelu_tanh", name="mlp")
            else:
                layer = MLP(cfg.mlp, policy, "relu", bias=False, name="mlp")
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


class T5(Decoder):
    """Two stacks of blocks around one embedding; the parameters are float32."""

    reads_source = True

    def setup(self):
        cfg, policy = self.cfg, self.policy

        def stack(layers, causal):
            block = functools.partial(Block, causal=causal)
            return Stack(block, cfg, policy, layers=layers)

        def distances(both_ways):
            return Distances(cfg.buckets, cfg.farthest, cfg.heads, both_ways)

        self.embed = Embed(cfg.vocab_size, cfg.width, policy, scale=1.0)
        self.encoder = stack(cfg.layers, causal=False)
        self.decoder = stack(cfg.decoder_depth, causal=True)
        self.encoder_distances = distances(both_ways=True)
        self.decoder_distances = distances(both_ways=False)
        self.encoder_norm = RMSNorm(cfg.epsilon)
        self.final_norm = RMSNorm(cfg.epsilon)
        # One at each place, as a place draws the same mask however often it is asked.
        self.source_dropout = Dropout(cfg.dropout)
        self.encoder_dropout = Dropout(cfg.dropout)
        self.target_dropout = Dropout(cfg.dropout)
        self.decoder_dropout = Dropout(cfg.dropout)
        self.unembed = self.own_head()

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

    def __call__(self, inputs: Inputs, cache=None, train=False, capture=()) -> Output:
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
        if self.cfg.scaled:
            hidden_BTD = hidden_BTD * self.width**-0.5
        return super().head(hidden_BTD)

    def init_cache(self, batch: int, length: int, source_length: int = 0) -> Cache:
        """An empty cache for `batch` rows of `length` tokens and their sources."""
        cfg = self.cfg

        def empty(slots):
            shape_BSNH = (batch, slots, cfg.heads, cfg.head_dim)
            return caches.empty(cfg.decoder_depth, shape_BSNH, self.policy.activations)

        segments_1BS = jnp.zeros((1, batch, source_length), jnp.int32)
        return Cache(empty(length), empty(source_length), segments_1BS)


make = maker(T5, Config)


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

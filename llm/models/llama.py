"""Llama: a pre-norm decoder with RMSNorm, rotary positions, grouped heads and SwiGLU.

arXiv:2302.13971 and 2407.21783; with `qk_norm`, queries and keys are normalised a head
(arXiv:2302.05442, as Qwen 3 does), which bounds the scores and allows high learning
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
import jax.numpy as jnp

from llm.errors import InputError
from llm.nn import cache as caches
from llm.nn.attention import Reach, attention
from llm.nn.contract import Inputs, Output
from llm.nn.dense import Dense
from llm.nn.dropout import Dropout
from llm.nn.embed import Embed
from llm.nn.mlp import SwiGLU
from llm.nn.norm import RMSNorm
from llm.nn.positions import rope
from llm.nn.stack import HOW, REMAT, Stack
from llm.nn.unembed import Unembed
from llm.nn.weights import einsum
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
    tied: bool = False,
    rope_base: float = 10_000.0,
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
      residual_scale: initial kernels that end a branch, in units of 1/sqrt(fan-in).
      embed_scale: standard deviation of the initial embeddings.
    """
    for field, value, known in (("how", how, HOW), ("remat", remat, tuple(REMAT))):
        if value not in known:
            raise InputError(
                got=f"model.{field} {value!r}", want=f"one of {', '.join(known)}"
            )
    sizes = {
        "layers": layers,
        "width": width,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "mlp": mlp,
    }
    for field, size in sizes.items():
        if size < 1:
            raise InputError(got=f"model.{field} {size}", want="1 or more")
    if not 0 <= dropout < 1:
        raise InputError(got=f"model.dropout {dropout}", want="at least 0 and below 1")
    if heads % kv_heads:
        raise InputError(
            got=f"{heads} heads on {kv_heads} kv_heads", want="a whole number for each"
        )
    if head_dim % 2:
        raise InputError(got=f"head_dim {head_dim}", want="an even one, for rope")
    return Llama(
        vocab_size=vocab_size,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp=mlp,
        qk_norm=qk_norm,
        tied=tied,
        rope_base=rope_base,
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
    epsilon: float
    residual_scale: float
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, inputs: Inputs):
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
        positions_BT, segments_BT = inputs.positions_BT, inputs.segments_BT
        q_BTNH = rope(q_BTNH, positions_BT, self.rope_base)
        k_BTKH = rope(k_BTKH, positions_BT, self.rope_base)
        if cache is None:
            k_BSKH, v_BSKH = k_BTKH, v_BTKH
            reach = Reach(positions_BT, segments_BT, positions_BT, segments_BT)
        else:
            S = cache.length
            slots_BT = jnp.where(segments_BT > 0, positions_BT, S)
            cache = cache.write(k_BTKH, v_BTKH, slots_BT)
            k_BSKH, v_BSKH = cache
            slots_BS = jnp.broadcast_to(jnp.arange(S), (x_BTD.shape[0], S))
            # A row holds one text: every slot up to the query's own is its past.
            reach = Reach(
                positions_BT, jnp.ones_like(segments_BT), slots_BS, slots_BS * 0 + 1
            )
        o_BTNH = attention(
            q_BTNH, k_BSKH, v_BSKH, reach, ordered=cache is None, policy=self.policy
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
        return out_BTD, cache


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the stream."""

    attention: dict[str, Any]
    mlp: int
    epsilon: float
    dropout: float
    residual_scale: float
    policy: Policy

    @nn.compact
    def __call__(self, x_BTD, cache, inputs: Inputs, train: bool):
        x_BTD = nn.with_logical_constraint(x_BTD, ("batch", "length", "width"))

        def drop(y_BTD):
            return Dropout(self.dropout)(y_BTD, inputs.index_B, train)

        with jax.named_scope("attention"):
            y_BTD = RMSNorm(self.epsilon, name="attention_norm")(x_BTD)
            y_BTD, cache = Attention(**self.attention, name="attention")(
                y_BTD, cache, inputs
            )
            x_BTD = x_BTD + drop(y_BTD)
        with jax.named_scope("mlp"):
            y_BTD = RMSNorm(self.epsilon, name="mlp_norm")(x_BTD)
            y_BTD = SwiGLU(self.mlp, self.policy, self.residual_scale, name="mlp")(
                y_BTD
            )
            x_BTD = x_BTD + drop(y_BTD)
        return x_BTD, cache


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
    tied: bool
    rope_base: float
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
            self.head = Unembed(self.width, self.vocab_size, self.policy)

    def __call__(self, inputs: Inputs, cache: Any = None, train: bool = False):
        """Hidden states of a batch, and the cache with its keys and values added."""
        x_BTD = self.embed(inputs.tokens_BT)
        x_BTD, cache = self.stack(x_BTD, cache, inputs, train)
        hidden_BTD = self.final_norm(x_BTD)
        if self.is_initializing():
            self.unembed_weight()
        return Output(hidden_BTD, cache)

    def unembed_weight(self) -> jax.Array:
        """The kernel_DV that turns hidden states into logits."""
        return self.embed.embedding.T if self.tied else self.head.kernel

    def unembed(self, hidden_BTD: jax.Array) -> jax.Array:
        """Logits, float32."""
        weight_DV = self.unembed_weight()
        return einsum("BTD,DV->BTV", hidden_BTD, weight_DV, self.policy).astype(
            jnp.float32
        )

    def init_cache(self, batch: int, length: int) -> caches.KeyValues:
        """An empty cache for `batch` rows of at most `length` tokens."""
        shape_BSKH = (batch, length, self.kv_heads, self.head_dim)
        return caches.empty(self.layers, shape_BSKH, self.policy.activations)

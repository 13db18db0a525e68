"""Attention as a layer: the products before and after it, and their parameters.

`Attention` is the leaf of the decoders with grouped heads and rotary positions. The
functions are its parts, for models whose attention is another; they make submodules of
the compact method that calls them.

`B batch, T query, D width, N heads, K kv heads, H head dim`
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from llm.nn import cache as caches
from llm.nn.attention import attention
from llm.nn.context import Context
from llm.nn.contract import Inputs
from llm.nn.dense import Dense
from llm.nn.scores import attended, attention_weights
from llm.precision import Policy


def heads_of(
    name: str,
    x_BTD: jax.Array,
    shape_NH: tuple[int, int],
    policy: Policy,
    *,
    axis: str = "heads",
    bias: bool = False,
) -> jax.Array:
    """Queries, keys or values of a stream, BTNH; `axis` is the logical one of heads."""
    return Dense(
        "BTD,DNH->BTNH",
        shape=(x_BTD.shape[-1], *shape_NH),
        axes=("embed", axis, "head_dim"),
        policy=policy,
        bias=bias,
        name=name,
    )(x_BTD)


def attend(
    q_BTNH: jax.Array,
    context: Context,
    capture: tuple[str, ...],
    policy: Policy,
    *,
    softcap: float = 0.0,
    bias_BNTS: jax.Array | None = None,
    **scores: Any,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What the queries get, BTNH, and the shares of the keys if `capture` wants them.

    Args:
      softcap, bias_BNTS: as in `attention_weights`; the fast form knows neither.
      scores: `causal`, `window` and `scale`, as in `attention`.
    """
    written_out = softcap or bias_BNTS is not None
    if not written_out:
        o_BTNH = attention(q_BTNH, context, policy=policy, **scores)
        if "attention" not in capture:
            return o_BTNH, {}
    weights_BNTS = attention_weights(
        q_BTNH, context, softcap=softcap, bias_BNTS=bias_BNTS, policy=policy, **scores
    )
    if written_out:
        o_BTNH = attended(weights_BNTS, context, policy)
    return o_BTNH, {"attention": weights_BNTS} if "attention" in capture else {}


def joined(
    o_BTNH: jax.Array,
    width: int,
    policy: Policy,
    *,
    scale: float = 1.0,
    bias: bool = False,
) -> jax.Array:
    """What all heads together add to the stream, BTD; `scale` as in `Dense`."""
    o_BTNH = nn.with_logical_constraint(
        o_BTNH, ("batch", "length", "heads", "head_dim")
    )
    return Dense(
        "BTNH,NHD->BTD",
        shape=(*o_BTNH.shape[2:], width),
        axes=("heads", "head_dim", "embed"),
        policy=policy,
        scale=scale,
        bias=bias,
        name="out",
    )(o_BTNH)


class Attention(nn.Module):
    """Self-attention of a decoder.

    Attributes:
      cfg: is read for `heads`, `kv_heads` and `head_dim`.
      norm: from a name to the norm of queries or keys of that name; None is none.
      bias: of queries, keys and values.
      scale, softcap: of the scores, as in `attention_weights`.
      residual_scale: of the initial kernel that ends the branch, as in `Dense`.
    """

    cfg: Any
    policy: Policy
    norm: Callable[..., Callable[[jax.Array], jax.Array]] | None = None
    bias: bool = False
    scale: float | None = None
    softcap: float = 0.0
    residual_scale: float = 1.0

    @nn.compact
    def __call__(self, x_BTD, cache, turn, inputs: Inputs, capture=(), window=None):
        """(what to add to the stream, what to insert in the cache, what is noted).

        Args:
          turn: from queries or keys, BTNH, to those of their positions.
        """
        cfg, policy = self.cfg, self.policy
        of_keys = ((cfg.kv_heads, cfg.head_dim), policy)
        q_BTNH = heads_of(
            "query", x_BTD, (cfg.heads, cfg.head_dim), policy, bias=self.bias
        )
        k_BTKH, v_BTKH = (
            heads_of(name, x_BTD, *of_keys, axis="kv_heads", bias=self.bias)
            for name in ("key", "value")
        )
        if self.norm is not None:
            q_BTNH = self.norm(name="query_norm")(q_BTNH)
            k_BTKH = self.norm(name="key_norm")(k_BTKH)
        q_BTNH, k_BTKH = turn(q_BTNH), turn(k_BTKH)
        context, new = caches.extend(cache, k_BTKH, v_BTKH, inputs)
        o_BTNH, noted = attend(
            q_BTNH, context, capture, policy,
            window=window, scale=self.scale, softcap=self.softcap,
        )  # fmt: skip
        out_BTD = joined(o_BTNH, x_BTD.shape[-1], policy, scale=self.residual_scale)
        return out_BTD, new, noted

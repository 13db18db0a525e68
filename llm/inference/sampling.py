"""From logits to a token: pure functions of logits, a key and the knobs of each row.

Knobs are arrays, a value a row, so that one compiled program serves rows that want
different things; what a row gets depends on nothing but its own. Work that no row asks
for is not done: greedy rows alone cost a maximum.

`B batch, V vocab, K weights to draw from, W biased tokens, C blocks of
the vocabulary`
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm import knobs
from llm.errors import InputError
from llm.knobs import Above0, Amount, Count, Finite, Share, ShareAbove0

BIASED = 300  # most tokens of a row that are biased
_BLOCK = 128  # tokens that are drawn from at once


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to choose. The defaults of all but temperature change nothing.

    Attributes:
      temperature: 0 is greedy.
      top_k: only the k most likely tokens; 0 is all.
      top_p: only the fewest most likely tokens whose probabilities reach p.
      min_p: only tokens at least min_p times as likely as the most likely one.
      repetition_penalty: divides positive logits and multiplies negative ones of tokens
        that are in the text already (arXiv:1909.05858).
      presence_penalty: taken from the logit of every token that was made.
      frequency_penalty: the same, as often as it was made.
      bias: (token, what is added to its logit) pairs.
    """

    temperature: Amount = 1.0
    top_k: Count = 0
    top_p: ShareAbove0 = 1.0
    min_p: Share = 0.0
    repetition_penalty: Above0 = 1.0
    presence_penalty: Finite = 0.0
    frequency_penalty: Finite = 0.0
    bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self):
        knobs.check("", type(self), vars(self))
        if len(self.bias) > BIASED:
            raise InputError(
                got=f"a bias of {len(self.bias)} tokens", want=f"at most {BIASED}"
            )


class Rows(NamedTuple):
    """The knobs of every row, see `Sampling`."""

    temperature_B: jax.Array
    top_k_B: jax.Array
    top_p_B: jax.Array
    min_p_B: jax.Array
    repetition_B: jax.Array
    presence_B: jax.Array
    frequency_B: jax.Array
    biased_BW: jax.Array  # tokens; one that is out of range is none
    bias_BW: jax.Array


def rows(knobs: Sequence[Sampling]) -> Rows:
    """Knobs of a row each, as arrays of the host."""
    B, far = len(knobs), np.iinfo(np.int32).max
    biased_BW, bias_BW = np.full((B, BIASED), far, np.int32), np.zeros((B, BIASED))
    for row, one in enumerate(knobs):
        for at, (token, amount) in enumerate(one.bias):
            biased_BW[row, at], bias_BW[row, at] = token, amount

    def column(name, dtype=np.float32):
        return np.array([getattr(one, name) for one in knobs], dtype)

    return Rows(
        temperature_B=column("temperature"),
        top_k_B=np.minimum(column("top_k", np.int64), far).astype(np.int32),
        top_p_B=column("top_p"),
        min_p_B=column("min_p"),
        repetition_B=column("repetition_penalty"),
        presence_B=column("presence_penalty"),
        frequency_B=column("frequency_penalty"),
        biased_BW=biased_BW,
        bias_BW=bias_BW.astype(np.float32),
    )


def is_greedy(knobs: Rows) -> jax.Array:
    """Which rows, B, take the most likely token as the logits are."""
    unbiased_B = (knobs.bias_BW == 0).all(axis=1) & (knobs.presence_B == 0)
    unbiased_B &= (knobs.frequency_B == 0) & (knobs.repetition_B == 1)
    return unbiased_B & (knobs.temperature_B == 0)


def penalise(logits_BV: jax.Array, history_BV: jax.Array, knobs: Rows) -> jax.Array:
    """Makes tokens of the text less likely, by three penalties, and adds the bias.

    Args:
      history_BV: twice how often a row has made a token, plus 1 if it was given it.
    """
    made_BV = (history_BV >> 1).astype(logits_BV.dtype)
    by_B1 = knobs.repetition_B[:, None]
    less_BV = jnp.where(logits_BV > 0, logits_BV / by_B1, logits_BV * by_B1)
    logits_BV = jnp.where(history_BV > 0, less_BV, logits_BV)
    logits_BV -= knobs.presence_B[:, None] * (made_BV > 0)
    logits_BV -= knobs.frequency_B[:, None] * made_BV
    rows_B1 = jnp.arange(len(logits_BV))[:, None]
    return logits_BV.at[rows_B1, knobs.biased_BW].add(knobs.bias_BW, mode="drop")


def restrict(logits_BV: jax.Array, knobs: Rows) -> jax.Array:
    """Logits after temperature, with those that top-k, top-p and min-p exclude at -inf.

    The filters apply in this order, each to what the one before left; the most likely
    token always stays.
    """
    logits_BV = logits_BV / jnp.maximum(knobs.temperature_B, 1e-6)[:, None]
    ranks_B = (knobs.top_k_B > 0) | (knobs.top_p_B < 1)
    least_B1 = jax.lax.cond(
        ranks_B.any(),
        lambda: _least(logits_BV, knobs),
        lambda: jnp.full((len(logits_BV), 1), -jnp.inf),
    )
    top_B1 = logits_BV.max(axis=-1, keepdims=True)
    least_B1 = jnp.maximum(least_B1, top_B1 + jnp.log(knobs.min_p_B)[:, None])
    return jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)


def _least(logits_BV: jax.Array, knobs: Rows) -> jax.Array:
    """The least logit, B1, that top-k and top-p leave in a row; -inf where all stay."""
    k_B1, p_B1 = knobs.top_k_B[:, None], knobs.top_p_B[:, None]
    least_k_B1 = jax.lax.cond(
        (k_B1 > 0).any(),
        lambda: _reaching(logits_BV, jnp.ones_like(logits_BV), k_B1),
        lambda: jnp.full(k_B1.shape, -jnp.inf),
    )
    least_k_B1 = jnp.where(k_B1 > 0, least_k_B1, -jnp.inf)
    top_B1 = logits_BV.max(axis=1, keepdims=True)
    weights_BV = jnp.where(logits_BV >= least_k_B1, jnp.exp(logits_BV - top_B1), 0.0)
    whole_B1 = weights_BV.sum(axis=1, keepdims=True)
    least_p_B1 = _reaching(logits_BV, weights_BV, p_B1 * whole_B1)
    return jnp.maximum(least_k_B1, jnp.where(p_B1 < 1, least_p_B1, -jnp.inf))


def _reaching(logits_BV: jax.Array, weights_BV: jax.Array, wanted_B1) -> jax.Array:
    """The highest value, B1, at or above which the weights reach what is wanted.

    Bit by bit, from the highest: floats are ordered as their bits are. A CPU does the
    32 passes in a tenth of the time that it takes to sort a vocabulary.
    """

    def value(bits_B1):
        sign = jnp.uint32(1 << 31)
        bits_B1 = jnp.where(bits_B1 >= sign, bits_B1 ^ sign, ~bits_B1)
        return jax.lax.bitcast_convert_type(bits_B1, jnp.float32)

    def one(n, bits_B1):
        more_B1 = bits_B1 | (jnp.uint32(1 << 31) >> n.astype(jnp.uint32))
        above_BV = jnp.where(logits_BV >= value(more_B1), weights_BV, 0.0)
        reached_B1 = above_BV.sum(axis=1, keepdims=True)
        return jnp.where(reached_B1 >= wanted_B1, more_B1, bits_B1)

    none_B1 = jnp.zeros((len(logits_BV), 1), jnp.uint32)
    found_B1 = value(jax.lax.fori_loop(0, 32, one, none_B1))
    return jnp.where(jnp.isnan(found_B1), -jnp.inf, found_B1)  # no value does


def choose(logits_BV: jax.Array, keys_B: jax.Array, knobs: Rows) -> jax.Array:
    """A token for every row, from that row's logits and key alone."""
    best_B = best(logits_BV)
    return jax.lax.cond(
        (knobs.temperature_B > 0).any(),
        lambda: jnp.where(
            knobs.temperature_B > 0, draw(restrict(logits_BV, knobs), keys_B), best_B
        ),
        lambda: best_B,
    )


def best(logits_BV: jax.Array) -> jax.Array:
    """The most likely token, the first of several; on a CPU faster than argmax."""
    V = logits_BV.shape[1]
    top_B1 = logits_BV.max(axis=1, keepdims=True)
    places_1V = jnp.arange(V, dtype=jnp.int32)[None]
    return jnp.where(logits_BV == top_B1, places_1V, V - 1).min(axis=1)


def draw(logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
    """A token of each row with the probability that its logits say.

    First a block of the vocabulary, then a token of it, by a random number each; that
    takes a tenth of the time of one random number a token.
    """
    B, V = logits_BV.shape
    C = -(-V // _BLOCK)
    shifted_BV = logits_BV - logits_BV.max(axis=1, keepdims=True)
    weights_BV = jnp.pad(jnp.exp(shifted_BV), ((0, 0), (0, C * _BLOCK - V)))
    weights_BCV = weights_BV.reshape(B, C, _BLOCK)
    uniform_B2 = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys_B)
    block_B = _place(weights_BCV.sum(axis=2), uniform_B2[:, 0])
    inner_BV = jnp.take_along_axis(weights_BCV, block_B[:, None, None], axis=1)[:, 0]
    return block_B * _BLOCK + _place(inner_BV, uniform_B2[:, 1])


def _place(weights_BK: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """Where a share `uniform_B` of a row's weights is reached; never at a zero."""
    reached_BK = jnp.cumsum(weights_BK, axis=1)
    wanted_B1 = uniform_B[:, None] * reached_BK[:, -1:]
    place_B = (reached_BK <= wanted_B1).sum(axis=1, dtype=jnp.int32)
    places_1K = jnp.arange(weights_BK.shape[1], dtype=jnp.int32)[None]
    return jnp.minimum(place_B, jnp.where(weights_BK > 0, places_1K, 0).max(axis=1))

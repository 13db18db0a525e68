"""From logits to a token: pure functions of logits, a key per row and the knobs.

`B batch, V vocab`
"""

import dataclasses

import jax
import jax.numpy as jnp

from llm.errors import InputError


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
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self):
        limits = {
            "temperature": self.temperature >= 0,
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
            "repetition_penalty": self.repetition_penalty > 0,
        }
        wanted = {
            "temperature": "0 or more",
            "top_k": "0 or more",
            "top_p": "above 0, at most 1",
            "min_p": "from 0 to 1",
            "repetition_penalty": "above 0",
        }
        for field, fits in limits.items():
            if not fits:
                raise InputError(
                    got=f"{field} {getattr(self, field)}", want=wanted[field]
                )


def penalise(logits_BV: jax.Array, seen_BV: jax.Array, penalty: float) -> jax.Array:
    """Makes tokens that were seen less likely (penalty above 1)."""
    less_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return jnp.where(seen_BV, less_BV, logits_BV)


def restrict(logits_BV: jax.Array, knobs: Sampling) -> jax.Array:
    """Logits after temperature, with those that top-k, top-p and min-p exclude at -inf.

    The filters apply in this order, each to what the one before left; the most likely
    token always stays.
    """
    logits_BV = logits_BV / max(knobs.temperature, 1e-6)
    out = -jnp.inf
    if knobs.top_k:
        k = min(knobs.top_k, logits_BV.shape[-1])
        least_B1 = jax.lax.top_k(logits_BV, k)[0][:, -1:]
        logits_BV = jnp.where(logits_BV >= least_B1, logits_BV, out)
    if knobs.top_p < 1:
        ordered_BV = jnp.sort(logits_BV, axis=-1, descending=True)
        p_BV = jax.nn.softmax(ordered_BV, axis=-1)
        before_BV = jnp.cumsum(p_BV, axis=-1) - p_BV
        kept_BV = jnp.where(before_BV < knobs.top_p, ordered_BV, jnp.inf)
        logits_BV = jnp.where(
            logits_BV >= kept_BV.min(axis=-1, keepdims=True), logits_BV, out
        )
    if knobs.min_p:
        top_B1 = logits_BV.max(axis=-1, keepdims=True)
        least_B1 = top_B1 + jnp.log(knobs.min_p)
        logits_BV = jnp.where(logits_BV >= least_B1, logits_BV, out)
    return logits_BV


def choose(logits_BV: jax.Array, keys_B: jax.Array, knobs: Sampling) -> jax.Array:
    """A token for every row, from that row's logits and key alone."""
    if knobs.temperature == 0:
        return logits_BV.argmax(axis=-1)
    return jax.vmap(jax.random.categorical)(keys_B, restrict(logits_BV, knobs))

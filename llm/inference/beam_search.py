"""Beam search: the most likely continuations, rather than the most likely next tokens.

At each step every live beam is extended by every token and the best are kept; a beam
that ends competes with the others by its log-probability divided by length**penalty
(arXiv:1609.08144 divides by a similar power). Works for any model with a cache, decoder
or encoder-decoder, and prompts of unequal length, without padding on the left. The
whole search is one compiled loop, which stops when no live beam of any prompt can
overtake the worst that is kept.

`B prompts, K beams, R = B * K rows, P padded prompt, M most new tokens, V vocab`
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm.errors import InputError
from llm.inference.prompt_rows import cache_for, check_length, inputs_of
from llm.nn import cache as caches
from llm.nn.contract import Inputs

_NEVER = -1e9


class Beam(NamedTuple):
    """A continuation, with its end token if it has one, and its penalised score."""

    ids: list[int]
    score: float


class _State(NamedTuple):
    step: jax.Array
    cache: Any
    logits_RV: jax.Array
    live_BKM: jax.Array
    live_BK: jax.Array  # log-probabilities
    done_BKM: jax.Array
    done_BK: jax.Array  # penalised scores, best first
    length_BK: jax.Array  # of those that are done


def beam_search(
    model: Any,
    params: Any,
    prompts: Sequence[Sequence[int]],
    *,
    beams: int,
    max_tokens: int,
    ends: Sequence[int],
    length_penalty: float = 1.0,
    forbidden: Sequence[int] = (),
    sources: Sequence[Sequence[int]] | None = None,
) -> list[list[Beam]]:
    """The best `beams` continuations of every prompt, best first.

    Args:
      prompts: token ids, at least one each; what a decoder starts with.
      ends: ids that end a text.
      length_penalty: 0 favours short texts, above 1 long ones.
      forbidden: ids that are never chosen; the others share the probability.
      sources: token ids for the encoder of an encoder-decoder.
    """
    if beams < 1 or max_tokens < 1:
        raise InputError(
            got=f"beams {beams}, max_tokens {max_tokens}", want="1 or more of each"
        )
    if not all(len(prompt) for prompt in prompts):
        raise InputError(got="an empty prompt", want="one token or more, such as BOS")
    check_length(model, prompts, max_tokens)
    inputs = inputs_of(prompts, sources)
    search = _Search(
        model, beams, max_tokens, tuple(ends), length_penalty, tuple(forbidden)
    )
    found = search.run(params, inputs)
    ids_BKM, score_BK, length_BK = map(np.asarray, found)
    return [
        [
            Beam(ids[:length].tolist(), float(score))
            for ids, score, length in zip(*per_prompt, strict=True)
            if score > _NEVER / 2
        ]
        for per_prompt in zip(ids_BKM, score_BK, length_BK, strict=True)
    ]


class _Search(NamedTuple):
    """What is compiled for."""

    model: Any
    beams: int
    max_tokens: int
    ends: tuple[int, ...]
    penalty: float
    forbidden: tuple[int, ...]

    @functools.partial(jax.jit, static_argnums=0)
    def run(self, params, inputs: Inputs):
        """(ids_BKM, score_BK, length_BK) of the best, best first."""
        B, K, M = inputs.tokens_BT.shape[0], self.beams, self.max_tokens
        lengths_B = (inputs.segments_BT > 0).sum(axis=1)
        past = self.model.init_cache(B, 0)
        logits_BV, new = self._apply(params, inputs, past, lengths_B - 1)
        cache = cache_for(self.model, inputs, M).insert(new, inputs)
        cache = jax.tree.map(lambda x: jnp.repeat(x, K, axis=caches.BATCH_AXIS), cache)
        logits_RV, lengths_R = (
            jnp.repeat(x, K, axis=0) for x in (logits_BV, lengths_B)
        )
        # The beams of a prompt begin alike: only the first may be extended.
        live_BK = jnp.full((B, K), _NEVER).at[:, 0].set(0.0)
        ids_BKM = jnp.zeros((B, K, M), jnp.int32)
        none_BK = jnp.full((B, K), _NEVER)
        zero_BK = jnp.zeros((B, K), jnp.int32)
        start = _State(
            jnp.int32(0), cache, logits_RV, ids_BKM, live_BK, ids_BKM, none_BK, zero_BK
        )
        end = jax.lax.while_loop(
            self._goes_on, lambda s: self._step(params, s, lengths_R), start
        )
        # Beams that have not ended count, too, with their length so far.
        score_BK = end.live_BK / self._power(end.step)
        step_BK = jnp.broadcast_to(end.step, (B, K))
        return self._best(
            (end.done_BKM, end.live_BKM), (end.done_BK, score_BK),
            (end.length_BK, step_BK),
        )  # fmt: skip

    def _apply(self, params, inputs, cache, last_B):
        """Logits at one place of every row, and what to insert in the cache."""

        def both(m):
            output = m(inputs, cache)
            last_B1D = jnp.take_along_axis(
                output.hidden_BTD, last_B[:, None, None], axis=1
            )
            return m.head(last_B1D).logits(m.policy)[:, 0], output.cache

        return self.model.apply({"params": params}, method=both)

    def _power(self, length):
        return jnp.maximum(length, 1).astype(jnp.float32) ** self.penalty

    def _goes_on(self, state: _State):
        """Whether a live beam could still be better than the worst that is kept.

        A log-probability only falls; divided by the length that flatters it most, it
        bounds what the beam can come to.
        """
        longest = self.max_tokens if self.penalty > 0 else state.step
        bound_B = state.live_BK.max(axis=1) / self._power(longest)
        open_ = (bound_B > state.done_BK.min(axis=1)).any()
        return (state.step < self.max_tokens) & ((state.step == 0) | open_)

    def _step(self, params, state: _State, lengths_R):
        (B, K), V = state.live_BK.shape, state.logits_RV.shape[-1]
        logits_RV = state.logits_RV
        if self.forbidden:
            logits_RV = logits_RV.at[:, jnp.array(self.forbidden)].set(_NEVER)
        log_RV = jax.nn.log_softmax(logits_RV)
        total_BX = (state.live_BK[:, :, None] + log_RV.reshape(B, K, V)).reshape(B, -1)
        # Each beam may end in every way: with so many, K can go on.
        count = min((1 + max(len(self.ends), 1)) * K, K * V)
        best_B2, place_B2 = jax.lax.top_k(total_BX, count)
        parent_B2, token_B2 = place_B2 // V, place_B2 % V
        ids_B2M = jnp.take_along_axis(state.live_BKM, parent_B2[..., None], axis=1)
        ids_B2M = ids_B2M.at[:, :, state.step].set(token_B2)
        ends_B2 = jnp.isin(token_B2, jnp.array(self.ends, jnp.int32))
        # An end counts only where it is among the best K, as in other searches: one
        # beam is then greedy decoding.
        among_2 = jnp.arange(token_B2.shape[1]) < K
        length = state.step + 1
        score_B2 = jnp.where(
            ends_B2 & among_2[None], best_B2 / self._power(length), _NEVER
        )
        done_BKM, done_BK, length_BK = self._best(
            (state.done_BKM, ids_B2M), (state.done_BK, score_B2),
            (state.length_BK, jnp.full(score_B2.shape, length)),
        )  # fmt: skip
        live_BK, chosen_BK = jax.lax.top_k(jnp.where(ends_B2, _NEVER, best_B2), K)
        live_BKM = jnp.take_along_axis(ids_B2M, chosen_BK[..., None], axis=1)
        parent_BK = jnp.take_along_axis(parent_B2, chosen_BK, axis=1)
        rows_R = (parent_BK + K * jnp.arange(B)[:, None]).reshape(-1)
        cache = jax.tree.map(
            lambda x: jnp.take(x, rows_R, axis=caches.BATCH_AXIS), state.cache
        )
        token_R1 = jnp.take_along_axis(token_B2, chosen_BK, axis=1).reshape(-1, 1)
        inputs = Inputs(
            token_R1,
            (lengths_R + state.step)[:, None].astype(jnp.int32),
            jnp.ones_like(token_R1),
            jnp.arange(B * K, dtype=jnp.int32),
        )
        logits_RV, new = self._apply(params, inputs, cache, jnp.zeros_like(rows_R))
        cache = cache.insert(new, inputs)
        return _State(
            length, cache, logits_RV, live_BKM, live_BK, done_BKM, done_BK, length_BK
        )

    def _best(self, ids, scores, lengths):
        """The best K of two lists, best first."""
        score_BK, place_BK = jax.lax.top_k(jnp.concatenate(scores, axis=1), self.beams)
        ids_BKM = jnp.take_along_axis(
            jnp.concatenate(ids, axis=1), place_BK[..., None], axis=1
        )
        lengths = jnp.concatenate(lengths, axis=1)
        return ids_BKM, score_BK, jnp.take_along_axis(lengths, place_BK, axis=1)

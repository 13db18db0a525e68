"""Continues prompts: a prefill, then one token at a time from the cache.

`B batch, T padded prompt, V vocab`

Prompts of unequal length share a batch without left padding: each row has its own
position, and what pads a short prompt is never seen. What a row samples depends on the
seed, its number and its position, not on its batch mates. Decoding runs on the device
in pieces of `_PIECE` tokens; between them the host looks for stop texts. `search` looks
for the most likely texts instead of sampling.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm.data.tokenizer import Tokenizer
from llm.inference import sampling
from llm.inference.beam import beam_search
from llm.inference.prompts import cache_for, check_length, inputs_of, rows_of
from llm.nn.contract import Inputs
from llm.task import Generated

_PIECE = 32


@dataclasses.dataclass(frozen=True)
class _Decoder:
    """What is compiled once for all batches of a shape."""

    model: Any
    knobs: sampling.Sampling
    forbidden: tuple[int, ...]

    @functools.partial(jax.jit, static_argnums=0)
    def prefill(self, params, inputs, cache):
        """Logits after each prompt, and the cache that holds the prompts."""
        output = self.model.apply({"params": params}, inputs, cache)
        lengths_B = (inputs.segments_BT > 0).sum(axis=1)
        last_B1D = jnp.take_along_axis(
            output.hidden_BTD, (lengths_B - 1)[:, None, None], axis=1
        )
        return self._logits_BV(params, last_B1D), output.cache

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
    def decode(self, params, state, keys_B):
        """`_PIECE` more tokens of every row: (state, tokens_BT)."""
        state, tokens_TB = jax.lax.scan(
            lambda s, _: self._step(params, s, keys_B), state, length=_PIECE
        )
        return state, tokens_TB.T

    def _step(self, params, state, keys_B):
        logits_BV, cache, positions_B, seen_BV = state
        B = logits_BV.shape[0]
        if self.knobs.repetition_penalty != 1:
            logits_BV = sampling.penalise(
                logits_BV, seen_BV, self.knobs.repetition_penalty
            )
        step_keys_B = jax.vmap(jax.random.fold_in)(keys_B, positions_B)
        token_B = sampling.choose(logits_BV, step_keys_B, self.knobs)
        seen_BV = seen_BV.at[jnp.arange(B), token_B].set(True)
        inputs = Inputs(
            token_B[:, None],
            positions_B[:, None],
            jnp.ones((B, 1), jnp.int32),
            jnp.arange(B),
        )
        output = self.model.apply({"params": params}, inputs, cache)
        logits_BV = self._logits_BV(params, output.hidden_BTD)
        return (logits_BV, output.cache, positions_B + 1, seen_BV), token_B

    def _logits_BV(self, params, hidden_B1D):
        head = self.model.apply({"params": params}, hidden_B1D, method="head")
        logits_BV = head.logits(self.model.policy)[:, 0]
        # Padding of the vocabulary and tokens that no text holds.
        return logits_BV.at[:, jnp.array(self.forbidden, int)].set(-jnp.inf)


def generate(
    model: Any,
    params: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    knobs: sampling.Sampling,
    max_tokens: int,
    stop: str = "",
    seed: int = 0,
    batch_size: int = 32,
) -> list[Generated]:
    """Continues every prompt until its end, a stop, or `max_tokens` tokens.

    Args:
      stop: regular expression; the text is cut where it first matches. '' never stops.
    """
    decoder = _Decoder(model, knobs, _forbidden(model, tokenizer))
    done: list[Generated] = []
    for first in range(0, len(prompts), batch_size):
        part = prompts[first : first + batch_size]
        done += _batch(decoder, params, tokenizer, part, max_tokens, stop, seed, first)
    return done


def search(
    model: Any,
    params: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    beams: int,
    best: int,
    max_tokens: int,
    length_penalty: float = 1.0,
    stop: str = "",
    batch_size: int = 8,
) -> list[Generated]:
    """The `best` most likely continuations of every prompt that `beams` beams find.

    Args:
      stop: as in `generate`; the search knows nothing of it, texts are cut afterwards.
    """
    done: list[Generated] = []
    for first in range(0, len(prompts), batch_size):
        part = prompts[first : first + batch_size]
        rows, sources = rows_of(model, tokenizer, part)
        found = beam_search(
            model,
            params,
            rows,
            beams=beams,
            max_tokens=max_tokens,
            ends=tokenizer.ends,
            length_penalty=length_penalty,
            forbidden=_forbidden(model, tokenizer),
            sources=sources,
        )
        for per_prompt in found:
            done += [_finished(b.ids, tokenizer, stop) for b in per_prompt[:best]]
    return done


def _forbidden(model: Any, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids that no text holds, and those that pad the vocabulary."""
    padding = range(tokenizer.vocab_size, model.vocab_size)
    return tuple(sorted({*tokenizer.never, *padding} - set(tokenizer.ends)))


def _batch(decoder, params, tokenizer, prompts, max_tokens, stop, seed, first):
    rows, sources = rows_of(decoder.model, tokenizer, prompts)
    check_length(decoder.model, rows, max_tokens)
    B = len(rows)
    inputs = inputs_of(rows, sources, multiple=_PIECE)  # few shapes, few compilations
    pieces = -(-max_tokens // _PIECE)
    cache = cache_for(decoder.model, inputs, pieces * _PIECE)
    logits_BV, cache = decoder.prefill(params, inputs, cache)
    seen_BV = np.zeros(logits_BV.shape, bool)
    for row, prompt in zip(seen_BV, rows, strict=True):
        row[prompt] = True
    numbers = jnp.arange(first, first + B)
    keys_B = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(seed), n))(numbers)
    lengths_B = jnp.array([len(row) for row in rows], jnp.int32)
    state = (logits_BV, cache, lengths_B, jnp.asarray(seen_BV))
    made: list[list[int]] = [[] for _ in rows]
    ended: list[Generated | None] = [None] * B
    for _ in range(pieces):
        state, tokens_BT = decoder.decode(params, state, keys_B)
        for row, new in enumerate(np.asarray(tokens_BT)):
            if ended[row] is None:
                made[row] += new.tolist()
                ended[row] = _ended(made[row][:max_tokens], tokenizer, stop)
        if all(ended):
            break
    return [
        end or _finished(row[:max_tokens], tokenizer, stop)
        for row, end in zip(made, ended, strict=True)
    ]


def _text(tokenizer: Tokenizer, ids: list[int]) -> str:
    """What stands after a prompt, with the space in front where there is one."""
    return tokenizer.decode_bytes(ids).decode("utf-8", errors="replace")


def _finished(ids: list[int], tokenizer: Tokenizer, stop: str) -> Generated:
    """The text of all there is to be."""
    found = _ended(ids, tokenizer, stop)
    return found or Generated(_text(tokenizer, ids), "length")


def _ended(ids: list[int], tokenizer: Tokenizer, stop: str) -> Generated | None:
    """The finished text, if an end or a stop is in it."""
    ends = [at for at, token in enumerate(ids) if token in tokenizer.ends]
    text = _text(tokenizer, ids[: ends[0]] if ends else ids)
    match = re.search(stop, text) if stop else None
    if match:
        return Generated(text[: match.start()], "stop")
    return Generated(text, "end") if ends else None

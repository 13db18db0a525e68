"""Continues prompts: a prefill, then one token at a time from the cache.

`B batch, T padded prompt, V vocab`

Prompts of unequal length share a batch without left padding: each row has its own
position, and what pads a short prompt is never seen. What a row samples depends on the
seed, its number and its position, not on its batch mates. Decoding runs on the device
in pieces of `PIECE` tokens; between them the host looks for stop texts. `search` looks
for the most likely texts instead of sampling.
"""

import codecs
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from llm.inference import sampling
from llm.inference.beam_search import beam_search
from llm.inference.engine import NONE, PIECE, Engine, key_data
from llm.inference.prompt_rows import Prompt, check_length, inputs_of, rows_of
from llm.inference.requests import Generated
from llm.tokenizers import Tokenizer

_BROKEN = "\ufffd".encode()


def generate(
    model: Any,
    params: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
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
    engine = Engine(model, forbidden(model, tokenizer), tokenizer.ends)
    done: list[Generated] = []
    for first in range(0, len(prompts), batch_size):
        part = prompts[first : first + batch_size]
        done += _batch(
            engine, params, tokenizer, part, knobs, max_tokens, stop, seed, first
        )
    return done


def search(
    model: Any,
    params: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
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
            forbidden=forbidden(model, tokenizer),
            sources=sources,
        )
        for per_prompt in found:
            done += [_finished(b.ids, tokenizer, stop) for b in per_prompt[:best]]
    return done


def forbidden(model: Any, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids that no text holds, and those that pad the vocabulary."""
    padding = range(tokenizer.vocab_size, model.vocab_size)
    return tuple(sorted({*tokenizer.never, *padding} - set(tokenizer.ends)))


def _batch(engine, params, tokenizer, prompts, knobs, max_tokens, stop, seed, first):
    rows, sources = rows_of(engine.model, tokenizer, prompts)
    check_length(engine.model, rows, max_tokens)
    B = len(rows)
    inputs = inputs_of(rows, sources, multiple=PIECE)  # few shapes, few compilations
    pieces = -(-max_tokens // PIECE)
    sizes = [B, inputs.tokens_BT.shape[1] + pieces * PIECE]
    if inputs.source is not None:
        sizes.append(inputs.source.tokens_BT.shape[1])
    prefix = engine.prefill(params, inputs)
    state = engine.insert(engine.empty(*sizes), prefix, np.arange(B))
    keys_B, how = key_data(seed, range(first, first + B)), sampling.rows([knobs] * B)
    made: list[list[int]] = [[] for _ in rows]
    ended: list[Generated | None] = [None] * B
    for _ in range(pieces):
        left_B = [
            0 if end else max_tokens - len(row)
            for end, row in zip(ended, made, strict=True)
        ]
        left_B = np.array(left_B, np.int32)
        state, found = engine.generate(params, state, how, keys_B, left_B)
        for row, new in enumerate(np.asarray(found.tokens_BT)):
            if ended[row] is None:
                made[row] += new[new != NONE].tolist()
                ended[row] = _ended(made[row], tokenizer, stop)
        if all(ended):
            break
    return [
        end or _finished(row, tokenizer, stop)
        for row, end in zip(made, ended, strict=True)
    ]


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """What stands after a prompt, with the space in front where there is one.

    Broken UTF-8 is U+FFFD, but half a character at the end is dropped.
    """
    text = codecs.getincrementaldecoder("utf-8")("replace")
    return text.decode(known_bytes(tokenizer, ids))


def known_bytes(tokenizer: Tokenizer, ids: Sequence[int]) -> bytes:
    """The bytes of ids; none that the next id may change."""
    content = tokenizer.decode_bytes(ids)
    # A library that only decodes whole texts shows half a character as U+FFFD.
    if tokenizer.piece_bytes is None:
        while content.endswith(_BROKEN):
            content = content.removesuffix(_BROKEN)
    return content


def _finished(ids: list[int], tokenizer: Tokenizer, stop: str) -> Generated:
    """The text of all there is to be."""
    found = _ended(ids, tokenizer, stop)
    return found or Generated(text_of(tokenizer, ids), "length")


def _ended(ids: list[int], tokenizer: Tokenizer, stop: str) -> Generated | None:
    """The finished text, if an end or a stop is in it."""
    ends = [at for at, token in enumerate(ids) if token in tokenizer.ends]
    text = text_of(tokenizer, ids[: ends[0]] if ends else ids)
    match = re.search(stop, text) if stop else None
    if match:
        return Generated(text[: match.start()], "stop")
    return Generated(text, "end") if ends else None

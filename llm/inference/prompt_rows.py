"""Texts as what a model is given: rows of ids, and what an encoder reads.

`B prompts, T tokens`

A decoder continues its prompt. An encoder-decoder reads it and begins to answer with
the padding id, as T5 does. Rows are padded on the right, and what pads them is in no
segment, so prompts of unequal length share a batch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from llm.errors import InputError
from llm.nn.contract import Inputs, reads_source
from llm.tokenizers import Tokenizer

Rows = Sequence[Sequence[int]]
Prompt = str | Sequence[int]  # a text, or the ids of one, to be taken as they are


def check_generates(model: Any) -> None:
    """Raises InputError for a model that only reads."""
    if not model.generates:
        raise InputError(
            got=f"a {type(model).__name__}, to generate",
            want="a decoder, or an encoder-decoder: this one only reads",
        )


def rows_of(
    model: Any, tokenizer: Tokenizer, prompts: Sequence[Prompt]
) -> tuple[Rows, Rows | None]:
    """Ids that the decoder begins with, and those that an encoder reads, if any.

    Raises:
      InputError: a model that does not generate, or an empty prompt for one that has
        nothing to begin with.
    """
    check_generates(model)
    if not reads_source(model):
        return [_whole(tokenizer, prompt) for prompt in prompts], None
    if tokenizer.pad_id < 0:
        raise InputError(
            got="an encoder-decoder whose tokenizer has no padding id",
            want="one: its answers begin with it",
        )
    sources = [
        [*_whole(tokenizer, prompt), *tokenizer.ends[:1]] if prompt else []
        for prompt in prompts
    ]
    if not all(sources):
        raise InputError(got="an empty prompt", want="text for the encoder to read")
    return [[tokenizer.pad_id]] * len(prompts), sources


def _whole(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    if isinstance(prompt, str):
        return with_start(tokenizer, tokenizer.encode(prompt))
    return _begun(tokenizer, prompt)


def with_start(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """The ids of a prompt; where texts have no start, an empty one follows an end."""
    start = tokenizer.start()
    # A chat template may write the start itself.
    ids = [*ids] if [*ids[: len(start)]] == start else [*start, *ids]
    return _begun(tokenizer, ids)


def _begun(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    ids = [*ids] or list(tokenizer.ends[:1])
    if not ids:
        raise InputError(
            got="an empty prompt", want="text: this model has no token to begin with"
        )
    return ids


def inputs_of(rows: Rows, sources: Rows | None = None, *, multiple: int = 1) -> Inputs:
    """Rows as inputs, padded on the right to a multiple of so many tokens."""
    width = -(-max(map(len, rows)) // multiple) * multiple
    tokens, positions, segments = np.zeros((3, len(rows), width), np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
        positions[i, : len(row)] = np.arange(len(row))
        segments[i, : len(row)] = 1
    source = None if sources is None else inputs_of(sources, multiple=multiple)
    index = np.arange(len(rows), dtype=np.int32)
    return Inputs(tokens, positions, segments, index, source=source)


def check_length(model: Any, rows: Rows, new: int) -> None:
    """Raises InputError for texts beyond the positions that a model has learned."""
    known, longest = model.cfg.context, max(map(len, rows)) + new
    if known and longest > known:
        raise InputError(
            got=f"{longest} tokens, of which {new} are new, for a model of {known}",
            want=f"at most {known}: shorter prompts, or fewer tokens",
        )


def cache_for(model: Any, inputs: Inputs, new: int) -> Any:
    """An empty cache for the inputs and `new` tokens after each of them."""
    sizes = [len(inputs.tokens_BT), inputs.tokens_BT.shape[1] + new]
    if inputs.source is not None:
        sizes.append(inputs.source.tokens_BT.shape[1])
    return model.init_cache(*sizes)

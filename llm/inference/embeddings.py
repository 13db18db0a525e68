"""Texts as vectors: hidden states of any model, pooled over the tokens of a text.

`B batch, T tokens, D width, N texts`

A row is what the tokenizer puts before a text, its tokens, and what it puts behind one:
[CLS] and [SEP] for a BERT, often nothing. Rows go through the model in the order of
their lengths, so that a batch holds little padding, which is neither attended to nor
pooled: a vector depends on its own text. Of a model with an encoder and a decoder, it
is the encoder that reads.

    embed = embedder(model, params, tokenizer, max_tokens=256)
    vectors_ND = embed(["a text", "another one"]).vectors
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm.errors import InputError
from llm.inference.prompt_rows import inputs_of
from llm.nn.contract import reads_source
from llm.tokenizers import Tokenizer

POOLINGS = ("mean", "first", "last")
_STEP = 32  # tokens: few shapes, few compilations
_SMALLEST = 1e-12


class Embedded(NamedTuple):
    """Vectors of texts, [N, D] float32, and how many texts were cut to fit."""

    vectors: np.ndarray
    cut: int


def embedder(
    model: Any,
    params: Any,
    tokenizer: Tokenizer,
    *,
    pooling: str = "mean",
    normalise: bool = True,
    max_tokens: int,
    batch_size: int = 32,
) -> Callable[[Sequence[str | Sequence[int]]], Embedded]:
    """A function that embeds texts, or their token ids.

    Args:
      pooling: the mean over all tokens of a row, its first token, or its last.
      normalise: whether vectors have length 1, so that a product is a cosine.
      max_tokens: longest row; of a longer text, the first tokens are read.

    Raises:
      InputError: an unknown pooling, or rows longer than the model's positions.
    """
    if pooling not in POOLINGS:
        raise InputError(
            got=f"pooling {pooling!r}", want=f"one of {', '.join(POOLINGS)}"
        )
    least = len(tokenizer.start() + tokenizer.finish()) + 1
    known = model.cfg.context
    if not least <= max_tokens <= (known or max_tokens):
        raise InputError(
            got=f"max_tokens {max_tokens}",
            want=f"{least} or more"
            + (f", at most the model's {known} positions" if known else ""),
        )

    @jax.jit
    def pooled(params, inputs):
        if reads_source(model):
            hidden_BTD, _ = model.apply({"params": params}, inputs, method="encode")
        else:
            hidden_BTD = model.apply({"params": params}, inputs).hidden_BTD
        vectors_BD = _pool(hidden_BTD.astype(jnp.float32), inputs.segments_BT, pooling)
        if not normalise:
            return vectors_BD
        size_B1 = jnp.linalg.norm(vectors_BD, axis=-1, keepdims=True)
        return vectors_BD / jnp.maximum(size_B1, _SMALLEST)

    def run(texts: Sequence[str | Sequence[int]]) -> Embedded:
        plain = [text for text in texts if isinstance(text, str)]
        encoded = iter(tokenizer.encode_batch(plain) if plain else ())
        ids = (next(encoded) if isinstance(text, str) else text for text in texts)
        made = [_row(tokenizer, list(of_text), max_tokens) for of_text in ids]
        rows = [row for row, _ in made]
        order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
        vectors = [None] * len(rows)
        size = min(batch_size, len(rows))
        for first in range(0, len(rows), size):
            part = order[first : first + size]
            # The last batch is filled up, to be of the same shape.
            filled = [rows[n] for n in [*part, *part[:1] * (size - len(part))]]
            found_BD = pooled(params, inputs_of(filled, multiple=_STEP))
            for number, vector_D in zip(part, np.asarray(found_BD), strict=False):
                vectors[number] = vector_D
        return Embedded(np.stack(vectors), sum(cut for _, cut in made))

    return run


def _row(tokenizer: Tokenizer, ids: list[int], most: int) -> tuple[list[int], bool]:
    """The ids of a text with what stands around them, and whether some were cut off."""
    start, finish = tokenizer.start(), tokenizer.finish()
    room = most - len(start) - len(finish)
    row = [*start, *ids[:room], *finish]
    if not row:
        raise InputError(got="an empty text", want="texts of one token or more")
    return row, len(ids) > room


def _pool(hidden_BTD, segments_BT, pooling) -> jax.Array:
    if pooling == "first":
        return hidden_BTD[:, 0]
    lengths_B = segments_BT.sum(axis=1)
    if pooling == "last":
        last_B11 = (lengths_B - 1)[:, None, None]
        return jnp.take_along_axis(hidden_BTD, last_B11, axis=1)[:, 0]
    # Chosen, not multiplied: zero times what is not finite would not be zero.
    real_BTD = jnp.where(segments_BT[..., None] > 0, hidden_BTD, 0)
    return real_BTD.sum(axis=1) / lengths_B[:, None]

"""Likelihood of whole texts: every token once, in windows that overlap.

`B windows, T length of a window`

A text is what its tokenizer begins texts with, its tokens, and the end; where that is
nothing, BOS or else EOS stands before it, as in lm-evaluation-harness. The first window
scores all of its targets; each one after it begins `1 - overlap` of a window later and
scores only what is new, so that all but the first tokens have at least `overlap * T`
tokens of context. The last window ends with the text and is as long as the others.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm.inference.requests import Scored
from llm.losses import Head, token_scores
from llm.nn.contract import Inputs, with_head
from llm.precision import Policy, first_columns
from llm.tokenizers import Tokenizer

_WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)  # then multiples
_TYPICAL = 256  # tokens: longer rows come in smaller batches


class Window(NamedTuple):
    """A row to score: tokens, targets, and which targets count, all [T]; a short text
    has a short row."""

    tokens: np.ndarray
    targets: np.ndarray
    counts: np.ndarray


def windows(ids: Sequence[int], length: int, overlap: float) -> Iterator[Window]:
    """The windows of a text; the last one is padded by zeros that do not count."""
    kept = min(int(overlap * length), length - 1)
    scored, start = 0, 0
    targets_in_all = len(ids) - 1
    while scored < targets_in_all:
        if start + length > targets_in_all:  # more context costs nothing
            start = max(targets_in_all - length, 0)
        end = min(start + length, targets_in_all)
        width = min(width_of(end - start), length)
        tokens, targets = np.zeros((2, width), np.int32)
        tokens[: end - start] = ids[start:end]
        targets[: end - start] = ids[start + 1 : end + 1]
        places = np.arange(start, start + width)
        yield Window(tokens, targets, (places >= scored) & (places < end))
        scored, start = end, start + length - kept


def rolling_scorer(
    model: Any,
    params: Any,
    tokenizer: Tokenizer,
    *,
    length: int,
    overlap: float,
    batch_size: int,
    policy: Policy,
) -> Callable[[Sequence[str]], list[Scored]]:
    """A function that scores texts, `batch_size` windows at once."""
    apply = with_head(model)

    @jax.jit
    def score(params, tokens_BT, targets_BT, counts_BT):
        B, T = tokens_BT.shape
        positions_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
        inputs = Inputs(
            tokens_BT, positions_BT, jnp.ones_like(tokens_BT), jnp.arange(B)
        )
        _, head = apply(params, inputs)
        head = without_padding(head, tokenizer.vocab_size)
        nll_BT, hit_BT = token_scores(head, targets_BT, policy=policy)
        return (nll_BT * counts_BT).sum(1), (hit_BT & counts_BT).sum(1)

    def run(texts: Sequence[str], *, ends: bool = True) -> list[Scored]:
        rows = [
            (number, window)
            for number, ids in enumerate(tokenizer.encode_batch(texts))
            for window in windows(_whole(tokenizer, ids, ends), length, overlap)
        ]
        nats, correct, count = np.zeros((3, len(texts)))
        for part, size in _batches(rows, batch_size):
            filled = [w for _, w in part] + [part[0][1]] * (size - len(part))
            nll_B, hit_B = jax.device_get(
                score(params, *map(np.stack, zip(*filled, strict=True)))
            )
            for (number, window), nll, hit in zip(part, nll_B, hit_B, strict=False):
                nats[number] += nll
                correct[number] += hit
                count[number] += window.counts.sum()
        totals = zip(nats, count, correct, strict=True)
        return [Scored(float(n), int(c), int(h)) for n, c, h in totals]

    return run


def _batches(
    rows: list[tuple[int, Window]], batch_size: int
) -> Iterator[tuple[list[tuple[int, Window]], int]]:
    """Windows of one width at a time, and how many rows their batch has."""
    size_of = lambda row: len(row[1].tokens)  # noqa: E731
    rows = sorted(rows, key=size_of, reverse=True)
    for width, group in itertools.groupby(rows, size_of):
        alike, size = list(group), rows_of_a_batch((width,), batch_size)
        for first in range(0, len(alike), size):
            yield alike[first : first + size], size


def width_of(length: int) -> int:
    """The least of few widths that holds so many tokens."""
    for width in _WIDTHS:
        if length <= width:
            return width
    return -(-length // 256) * 256


def rows_of_a_batch(shape: tuple[int, ...], batch_size: int) -> int:
    """Rows of a batch, whose tokens are about as many whatever their lengths."""
    return max(batch_size * _TYPICAL // max(*shape, _TYPICAL), 1)


def prefix(tokenizer: Tokenizer) -> list[int]:
    """What stands before a text that follows nothing: what texts begin with, else BOS,
    else the end of another text."""
    bos = [tokenizer.bos_id] if tokenizer.bos_id >= 0 else []
    return list(tokenizer.start() or bos or tokenizer.ends[:1])


def _whole(tokenizer: Tokenizer, ids: list[int], ends: bool) -> list[int]:
    """The ids of a text from its start to its end."""
    end = list(tokenizer.ends[:1]) if ends else []
    return [*prefix(tokenizer), *ids, *end]


def without_padding(head: Head, vocab_size: int) -> Head:
    """A head of the tokenizer's vocabulary: what pads it takes no probability."""
    bias_V = None if head.bias_V is None else head.bias_V[:vocab_size]
    kernel_DV = first_columns(head.kernel_DV, vocab_size)
    return head._replace(kernel_DV=kernel_DV, bias_V=bias_V)

"""Likelihood of whole texts: every token once, in windows that overlap.

`B windows, T length of a window`

A text is what its tokenizer begins texts with, its tokens, and the end; where that is
nothing, the end of a text before it. The first window scores all of its targets; each
one after it begins `1 - overlap` of a window later and scores only what is new, so that
all but the first tokens have at least `overlap * T` tokens of context.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm.data.tokenizer import Tokenizer
from llm.losses import Head, token_scores
from llm.nn.contract import Inputs, with_head
from llm.precision import Policy, first_columns
from llm.task import Scored


class Window(NamedTuple):
    """A row to score: tokens, targets, and which targets count, all [T]."""

    tokens: np.ndarray
    targets: np.ndarray
    counts: np.ndarray


def windows(ids: Sequence[int], length: int, overlap: float) -> Iterator[Window]:
    """The windows of a text; the last one is padded by zeros that do not count."""
    kept = min(int(overlap * length), length - 1)
    scored, start = 0, 0
    targets_in_all = len(ids) - 1
    while scored < targets_in_all:
        end = min(start + length, targets_in_all)
        tokens, targets = np.zeros((2, length), np.int32)
        tokens[: end - start] = ids[start:end]
        targets[: end - start] = ids[start + 1 : end + 1]
        places = np.arange(start, start + length)
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

    def run(texts: Sequence[str]) -> list[Scored]:
        rows = [
            (number, window)
            for number, ids in enumerate(tokenizer.encode_batch(texts))
            for window in windows(_whole(tokenizer, ids), length, overlap)
        ]
        nats, correct, count = np.zeros((3, len(texts)))
        for first in range(0, len(rows), batch_size):
            part = rows[first : first + batch_size]
            filled = [w for _, w in part] + [part[0][1]] * (batch_size - len(part))
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


def _whole(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """The ids of a text from its start to its end."""
    end = list(tokenizer.ends[:1])
    return [*(tokenizer.start() or end), *ids, *end]


def without_padding(head: Head, vocab_size: int) -> Head:
    """A head of the tokenizer's vocabulary: what pads it takes no probability."""
    bias_V = None if head.bias_V is None else head.bias_V[:vocab_size]
    kernel_DV = first_columns(head.kernel_DV, vocab_size)
    return head._replace(kernel_DV=kernel_DV, bias_V=bias_V)

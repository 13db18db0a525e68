"""Masked language modelling: hidden tokens are predicted from both sides.

BERT, arXiv:1810.04805: of the tokens of a row, 15 % are chosen; of these, 80 % become
the mask token, 10 % a random token and 10 % stay. Only the chosen ones are predicted.
The share is met exactly, to the nearest token, and a row with text has at least one.
Special tokens and padding are never chosen, and never drawn as random tokens. The mask
token is the first id after the tokenizer's.

`whole_words` chooses all tokens of a word or none, which makes the task harder (the
authors' release of May 2019). A token goes on with a word if the byte before it and its
own first byte both are letters, digits, underscores or beyond ASCII; so punctuation and
white space end a word, wherever pieces are cut. The share is met to the nearest word.

A row has T + 1 tokens, the last of which is the first of another row: it is left out.
"""

from typing import Any, NamedTuple

import numpy as np

from llm.errors import InputError
from llm.knobs import Amount, Between0And1, Count, Share
from llm.losses import batch_loss
from llm.nn.contract import inputs_of
from llm.objectives import Objective, uniform

TINY = {"chunk": 32}
_WORD = np.array(
    [byte >= 128 or chr(byte).isalnum() or chr(byte) == "_" for byte in range(256)]
)


class Table(NamedTuple):
    """What is asked of every id of the tokenizer, [V] each.

    Attributes:
      special: stands for no text.
      first, last: whether its first and its last byte can be inside a word.
    """

    special: np.ndarray
    first: np.ndarray
    last: np.ndarray


def make(
    *,
    rate: Between0And1 = 0.15,
    mask: Share = 0.8,
    random: Share = 0.1,
    whole_words: bool = False,
    z_loss: Amount = 0.0,
    chunk: Count = 0,
    vocab_size: int,
    tokenizer: Any = None,
) -> Objective:
    """Masked language modelling.

    Args:
      rate: share of the tokens that are predicted.
      mask, random: shares of these that become the mask token and a random one; what
        is left stays.
      whole_words: chooses words instead of tokens.
      z_loss: coefficient of the squared log-normaliser.
      chunk: positions whose logits exist at once; 0 is all of a row.
      vocab_size: ids of the tokenizer.
      tokenizer: says which ids are special and what bytes they stand for.

    Raises:
      InputError: shares that are none, or whole words of a tokenizer that cannot tell.
    """
    if mask + random > 1:
        raise InputError(
            got=f"objective.mask {mask} and random {random}", want="a sum of 1 at most"
        )
    if whole_words and tokenizer is not None and tokenizer.piece_bytes is None:
        raise InputError(
            got="objective.whole_words with a tokenizer that knows no bytes of a token",
            want="whole_words=False",
        )
    table = table_of(vocab_size, tokenizer)
    ordinary = np.flatnonzero(~table.special)

    def features(record, rng):
        tokens, segments = record["tokens"][:-1], record["segments"][:-1]
        T = len(tokens)
        units = _units(tokens, segments, table, whole_words)
        chosen = _chosen(units, rate, uniform(rng, T))
        fate, other = uniform(rng, T), uniform(rng, T)
        masked = chosen & (fate < mask)
        replaced = chosen & (fate >= mask) & (fate < mask + random)
        shown = np.where(masked, vocab_size, tokens)
        if len(ordinary):
            drawn = ordinary[np.floor(other * len(ordinary)).astype(np.int64)]
            shown = np.where(replaced, drawn, shown)
        return {
            "tokens": shown.astype(np.int32),
            "targets": tokens,
            "positions": record["positions"][:-1],
            "segments": segments,
            "weights": chosen.astype(np.int32),
        }

    def loss(apply, params, batch, *, rngs=None, policy):
        inputs = inputs_of(batch)
        output, head = apply(params, inputs, train=rngs is not None, rngs=rngs)
        return batch_loss(
            head, output.sums, batch, z_loss=z_loss, chunk=chunk, policy=policy
        )

    return Objective(kinds=("masked",), features=features, loss=loss, extra_tokens=1)


def table_of(vocab_size: int, tokenizer: Any) -> Table:
    """The table of a tokenizer; without one, no id is special."""
    special, first, last = np.zeros((3, vocab_size), bool)
    if tokenizer is None:
        return Table(special, first, last)
    t = tokenizer
    # An id that a tokenizer lacks is -1.
    for i in (t.pad_id, t.unk_id, t.bos_id, t.eos_id, *t.never):
        if 0 <= i < vocab_size:
            special[i] = True
    for i, content in enumerate(t.piece_bytes or ()):
        special[i] |= not content
        if content:
            first[i], last[i] = _WORD[content[0]], _WORD[content[-1]]
    return Table(special, first, last)


def _units(tokens, segments, table: Table, whole_words: bool) -> np.ndarray:
    """Which word (or token) of the row a token belongs to, from 0; -1 is never chosen.

    Words are numbered in their order, and never reach over two segments.
    """
    free = (segments > 0) & ~table.special[tokens]
    begins = free.copy()
    if whole_words:
        goes_on = free[1:] & free[:-1] & (segments[1:] == segments[:-1])
        goes_on &= table.last[tokens[:-1]] & table.first[tokens[1:]]
        begins[1:] &= ~goes_on
    return np.where(free, np.cumsum(begins) - 1, -1)


def _chosen(units: np.ndarray, rate: float, order: np.ndarray) -> np.ndarray:
    """Random units that hold `rate` of the tokens, as near as it goes, one at least.

    Args:
      order: random numbers; the first ones order the units.
    """
    size = np.bincount(units[units >= 0])
    if not len(size):
        return np.zeros(len(units), bool)
    turn = np.argsort(order[: len(size)], kind="stable")
    held = np.cumsum(size[turn])
    count = 1 + int(np.argmin(np.abs(held - rate * size.sum())))
    taken = np.zeros(len(size) + 1, bool)  # the last one is that of -1
    taken[turn[:count]] = True
    return taken[units]

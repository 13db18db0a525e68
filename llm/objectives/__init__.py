"""The contract of an objective: from a record to a loss.

`features(record, rng)` turns one row of tokens into the arrays of one example, a pure
function of its arguments. `loss(apply, params, batch, policy)` returns the sum of the
losses of a batch, the sum of their weights and {name: (sum, weight)} for the log; the
training loop alone divides, by the global weight, across micro-batches and hosts.
An objective of records, such as questions with answers, or of short texts says by
`room` how they come into rows whole. One with a `reference` is given the parameters
that training began with as `loss(..., reference=)`.
`extend(key, params, width)` adds parameters of its own to the model's, such as those of
a classifier of its hidden states. One that learns from answers of the model itself says
by `online` how: `features` then gives the prompt, and `llm/training/rollouts.py` puts
the answer and what the objective makes of its reward in the same arrays.

An objective may need tokens that no text has: a mask, or the sentinels of spans. It
says how many; their ids follow those of the tokenizer, and the model's vocabulary is
made so much larger:

    objective = build(c.objective, tokenizer.vocab_size, tokenizer)
    vocab_size = padded_vocab(tokenizer.vocab_size + objective.extra_tokens)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from llm import registry


def _nothing(key: jax.Array, params: Any, width: int) -> Any:
    del key, width
    return params


class Online(NamedTuple):
    """How an objective learns from answers of the model that trains.

    Attributes:
      group: answers to each prompt.
      max_tokens: most tokens of an answer.
      temperature: at which they are sampled.
      score: from (apply, params, batch, policy) to {name: [B, T]} of the answers as the
        model that sampled them sees them; `logprobs` among them.
      learn: from the rewards of all processes ([B], nan of an answer that has none),
        the slice of them that is this one's, and the arrays of its batch, to what is to
        be added to these, and {name: (sum, weight)} for the log.
      epochs: how often each answer is learned from.
    """

    group: int
    max_tokens: int
    temperature: float
    score: Callable[..., dict[str, jax.Array]]
    learn: Callable[[np.ndarray, slice, dict[str, np.ndarray]], tuple[dict, dict]]
    epochs: int = 1


class Objective(NamedTuple):
    """See the module docstring.

    Attributes:
      kinds: kinds of model that it can train: 'causal', 'masked', 'encdec'.
      extra_tokens: ids that it needs beyond the tokenizer's.
      predicts_tokens: whether it needs the model's head.
      room: as `llm/data/loader.py` has it; None for texts, which are cut anywhere.
      classes: what a text is told apart by, for `predict`.
      predict: from (apply, params, inputs, policy) to logits of the classes, [B, C];
        None where a text as a whole has no class.
      reads_end: whether `predict` looks at the end of a text, so that this is what must
        stay of one that is too long.
      online: of one that learns from answers of the model itself.
      unpaired: whether a record may have one answer alone, good or bad, where `room`
        has a place for both.
      reward: of a reward model: from (apply, params, inputs, policy) to a number for
        each row, [B], the higher the better its answer, which ends the row.
      whole: names of metrics whose mean over a whole batch the loss of a part of it
        needs: it is given to that part, as `batch[name]`.
    """

    kinds: tuple[str, ...]
    features: Callable[[dict[str, Any], Any], dict[str, Any]]
    loss: Callable[..., tuple[jax.Array, jax.Array, dict[str, tuple]]]
    extra_tokens: int = 0
    predicts_tokens: bool = True
    extend: Callable[[jax.Array, Any, int], Any] = _nothing
    room: Callable[[int], tuple[tuple[tuple[int, ...], int], ...]] | None = None
    reference: bool = False
    classes: tuple[str, ...] = ()
    predict: Callable[..., jax.Array] | None = None
    reads_end: bool = False
    online: Online | None = None
    unpaired: bool = False
    reward: Callable[..., jax.Array] | None = None
    whole: tuple[str, ...] = ()


def build(spec: Any, vocab_size: int, tokenizer: Any = None) -> Objective:
    """The objective of a config; every `make` is given these two.

    Args:
      spec: as in `registry.build`.
      vocab_size: ids of the tokenizer.
      tokenizer: None where there is none yet; then only the shapes of features count.
    """
    return registry.build(
        "objectives", spec, vocab_size=vocab_size, tokenizer=tokenizer
    )


def never_sampled(tokenizer: Any) -> tuple[int, ...]:
    """Ids that no answer holds: the engine never samples them."""
    if tokenizer is None:
        return ()
    return tuple(sorted(set(tokenizer.never) - set(tokenizer.ends)))


def blank_record(seq_len: int) -> dict[str, np.ndarray]:
    """A record that is all padding, as the loader makes them of labelled texts."""
    names = ("tokens", "segments", "positions")
    record = {name: np.zeros(seq_len + 1, np.int32) for name in names}
    return record | {"labels": np.full(seq_len + 1, -1, np.int32)}


def row_shapes(objective: Objective, seq_len: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What the features of a row look like; the same for every row."""
    made = objective.features(blank_record(seq_len), np.random.default_rng(0))
    return {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in made.items()}


def uniform(rng: np.random.Generator, count: int) -> np.ndarray:
    """`count` numbers from 0 to below 1, float64.

    They are the upper halves of raw bits, which numpy promises to keep, unlike what its
    distributions make of them: a row is the same with any version.
    """
    return (rng.bit_generator.random_raw(count) >> np.uint64(32)) * 2.0**-32

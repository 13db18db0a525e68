"""A trained reward model asked about answers: a number for each, higher is better.

    score = scorer(load_model.load("runs/reward", device))
    score([reward_row(tokenizer, "1 + 1 =", " 2"), ...])     # float32, in order

A row is a prompt and an answer, which ends it, as in training: where the template
writes something behind an answer, that is not in the row.

`B rows, T tokens`
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm.data import record_tokens
from llm.errors import InputError
from llm.inference import load_model
from llm.inference.prompt_rows import Rows, inputs_of

_STEP = 32  # tokens: few shapes, few compilations


def reward_row(
    tokenizer: Any, prompt: Any, answer: Any, given: tuple[Any, Any] = ((), {})
) -> list[int]:
    """The tokens of a prompt and an answer, each a text or messages, up to its end.

    Args:
      given: as `record_tokens.answered` has it.
    """
    ids, parts = record_tokens.answered(tokenizer, prompt, answer, given)
    last = np.flatnonzero(parts == record_tokens.ANSWER)[-1]
    return ids[: last + 1]


def scorer(
    loaded: load_model.Loaded, *, batch_size: int = 32
) -> Callable[[Rows], np.ndarray]:
    """A function from rows to their rewards. Of a longer row than the model reads, the
    last tokens are read.

    Raises:
      InputError: a model that is no reward model.
    """
    model, objective = loaded.model, loaded.objective
    if objective.reward is None:
        raise InputError(
            got=f"a model trained by {loaded.config.objective.name}, for rewards",
            want="one of the objective reward",
            do="train one: configs/reward.py",
        )
    most = load_model.context(loaded)

    @jax.jit
    def compiled(params, inputs):
        return objective.reward(model.apply, params, inputs, model.policy)

    def score(
        rows: Sequence[Sequence[int]],
        done: Callable[[int], None] = lambda count: None,
    ) -> np.ndarray:
        order = sorted(range(len(rows)), key=lambda n: -len(rows[n]))
        rewards = np.zeros(len(rows), np.float32)
        for first in range(0, len(rows), batch_size):
            part = order[first : first + batch_size]
            # The last batch is filled up, to be of the same shape.
            filled = [*part, *part[:1] * (batch_size - len(part))]
            inputs = inputs_of([rows[n][-most:] for n in filled], multiple=_STEP)
            inputs = jax.tree.map(jnp.asarray, inputs)
            rewards[part] = compiled(loaded.params, inputs)[: len(part)]
            done(len(part))
        return rewards

    return score

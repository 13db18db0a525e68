"""0 up to a number of tokens, then less and less, down to -1: against long answers.

The soft penalty of DAPO (arXiv:2503.14476): answers of more than `most - margin` tokens
lose in proportion, those of `most` or more, and those that are cut off, lose 1.
"""

from typing import Any

from llm.errors import InputError
from llm.knobs import Count, Positive
from llm.rewards import Answer, Reward, each

TINY: dict[str, Any] = {}


def make(*, most: Positive = 256, margin: Count = 64) -> Reward:
    """Makes the reward.

    Args:
      most: tokens of an answer that lose all.
      margin: tokens before that, over which the penalty grows.

    Raises:
      InputError: a margin above `most`.
    """
    if margin > most:
        raise InputError(got=f"margin {margin}", want=f"at most {most}, as most is")

    @each
    def reward(answer: Answer) -> float:
        if not answer.ended:
            return -1.0
        over = len(answer.ids) - (most - margin)
        return -min(max(over / max(margin, 1), 0.0), 1.0)

    return reward

"""1 for an answer that is the reference, or matches a pattern, else 0.

Without a pattern, texts are compared as evaluations do (`generation`): numbers as
numbers, other texts in lower case and without punctuation; `exact` compares them as
they are. With a pattern the whole answer must match it, and where it has a group, that
is what is compared with the reference: `answer: (A|B|C|D)` learns a form of choices.
"""

import re
from typing import Any

from llm.errors import InputError
from llm.rewards import Answer, Reward, each
from llm.text import answer_text

TINY: dict[str, Any] = {}


def make(*, pattern: str = "", exact: bool = False) -> Reward:
    """Makes the reward.

    Args:
      pattern: regular expression of the whole answer; '' takes all of it.
      exact: whether case, punctuation and the way to write a number count.

    Raises:
      InputError: no regular expression.
    """
    try:
        form = re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise InputError(
            got=f"pattern {pattern!r} ({error})", want="a regular expression"
        ) from error

    @each
    def reward(answer: Answer) -> float:
        text = answer.text.strip()
        if pattern:
            match = form.fullmatch(text)
            if not match or not form.groups:
                return float(bool(match))
            text = match[1] or ""
        same = answer_text.normalised(text, exact) == answer_text.normalised(
            answer.reference, exact
        )
        return float(same)

    return reward

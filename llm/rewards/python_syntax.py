"""1 for an answer that parses as Python and ends by itself, else 0.

With `fenced` the answer is the first fenced block of Markdown, where there is one. An
empty answer, or one of comments alone, gets nothing: it parses, and says nothing. With
`prompt` the code is the prompt with its answer, for models that continue code.
"""

import ast
import re
import warnings
from typing import Any

from llm.rewards import Answer, Reward, each

TINY: dict[str, Any] = {}
_FENCED = re.compile(r"```(?:python|py)?\n(.*?)```", re.DOTALL)


def make(*, fenced: bool = True, prompt: bool = False) -> Reward:
    """Makes the reward.

    Args:
      fenced: whether code stands in a fenced block, if there is one.
      prompt: whether the code begins with the prompt.
    """

    @each
    def reward(answer: Answer) -> float:
        if not answer.ended:
            return 0.0
        block = _FENCED.search(answer.text) if fenced else None
        code = block[1] if block else answer.text
        return float(_parses(answer.prompt + code if prompt else code))

    return reward


def _parses(code: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python will refuse later
            return bool(ast.parse(code).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False

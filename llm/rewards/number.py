"""1 for an answer with the right number, else 0: arithmetic, GSM8K and their like.

The number is the last one of the answer, or what stands in \\boxed{}; numbers are
compared exactly, in whatever way they are written (`llm/text/numerals.py`). With `key`
the answer must be a JSON object, and the number its field of that name: the form is
learned with the sum.

    number(key="answer"):  {"answer": 19}
"""

import json
from typing import Any, Literal

from llm.rewards import Answer, Failed, Reward, each
from llm.text import numerals

TINY: dict[str, Any] = {}


def make(*, key: str = "", point: Literal[".", ","] = ".") -> Reward:
    """Makes the reward.

    Args:
      key: the field of a JSON object; '' reads the number from text.
      point: the decimal point of numbers in text.
    """

    @each
    def reward(answer: Answer) -> float:
        wanted = numerals.read(numerals.last(answer.reference), point=point)
        if wanted is None:
            raise Failed(f"no number in the reference {answer.reference[:80]!r}")
        if not answer.ended:
            return 0.0  # cut off: the last number so far may be half of one
        text = _field(answer.text, key) if key else numerals.last(answer.text)
        return float(numerals.read(text, point=point) == wanted)

    return reward


def _field(text: str, key: str) -> str:
    """The number in a field of a JSON object, as text; '' if there is none."""
    try:
        content = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return ""
    value = content.get(key) if isinstance(content, dict) else None
    return value if isinstance(value, str) else ""

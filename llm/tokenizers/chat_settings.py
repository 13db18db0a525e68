"""How conversations of a model become tokens, as it is saved beside its tokenizer.

tokenizer/chat.json    {"date": "2026-11-30", "template_variables": {...}, ...}
"""

import dataclasses
import datetime
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from llm.errors import InputError

FILE = "chat.json"
SCALARS = (str, bool, int, float)  # what a variable of a template may be


@dataclasses.dataclass(frozen=True)
class Chat:
    """Settings of conversations.

    Attributes:
      date: today for a template that writes it, as YYYY-MM-DD; '' is the day it runs.
      learn_empty_think: whether an empty block of thoughts that a template puts before
        an answer is learned.
      template_variables: values of names that the template reads beside the messages,
        such as {"enable_thinking": False}; a record or a request may have its own.
      parse_special: whether control tokens spelled out in texts and messages are these
        tokens; not where strangers write them.
    """

    date: str = ""
    learn_empty_think: bool = False
    template_variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parse_special: bool = False


DEFAULT = Chat()


def check(settings: Mapping[str, Any]) -> Chat:
    """The settings of a config; InputError for a date or variables that are none."""
    chat = Chat(**settings)
    if isinstance(chat.template_variables, str):
        variables = _object(chat.template_variables)
        chat = dataclasses.replace(chat, template_variables=variables)
    try:
        if chat.date:
            datetime.date.fromisoformat(chat.date)
    except ValueError as error:
        raise InputError(
            got=f"tokenizer.date {chat.date!r}", want="a date as 2026-01-31, or ''"
        ) from error
    return chat


def _object(text: str) -> dict[str, Any]:
    """Variables as a config has them: JSON, or '' for none."""
    try:
        made = json.loads(text or "{}")
    except ValueError:
        made = None
    if isinstance(made, dict) and all(isinstance(v, SCALARS) for v in made.values()):
        return made
    raise InputError(
        got=f"tokenizer.template_variables {text!r}",
        want='a JSON object of texts, numbers and booleans: {"enable_thinking": false}',
    )


def load(folder: epath.Path) -> Chat:
    """The settings in the folder of a tokenizer; the defaults where there are none."""
    path = folder / FILE
    return Chat(**json.loads(path.read_text("utf-8"))) if path.exists() else Chat()

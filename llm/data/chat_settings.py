"""How conversations of a model become tokens, as it is saved beside its tokenizer.

tokenizer/chat.json    {"date": "2026-11-30", "learn_empty_think": false, ...}
"""

import dataclasses
import datetime
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from llm.errors import InputError

FILE = "chat.json"


@dataclasses.dataclass(frozen=True)
class Chat:
    """Settings of conversations.

    Attributes:
      date: today for a template that writes it, as YYYY-MM-DD; '' is the day it runs.
      learn_empty_think: whether an empty block of thoughts that a template puts before
        an answer is learned.
      parse_special: whether control tokens spelled out in texts and messages are these
        tokens; not where strangers write them.
    """

    date: str = ""
    learn_empty_think: bool = False
    parse_special: bool = False


DEFAULT = Chat()


def check(settings: Mapping[str, Any]) -> Chat:
    """The settings; InputError for a date that is none."""
    chat = Chat(**settings)
    try:
        if chat.date:
            datetime.date.fromisoformat(chat.date)
    except ValueError as error:
        raise InputError(
            got=f"tokenizer.date {chat.date!r}", want="a date as 2026-01-31, or ''"
        ) from error
    return chat


def load(folder: epath.Path) -> Chat:
    """The settings in the folder of a tokenizer; the defaults where there are none."""
    path = folder / FILE
    return Chat(**json.loads(path.read_text("utf-8"))) if path.exists() else Chat()

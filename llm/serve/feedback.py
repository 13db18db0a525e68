"""What people think of answers, as records that preference training reads.

    preferences.jsonl   {"prompt": ..., "chosen": ..., "rejected": ...}
    ratings.jsonl       {"prompt": ..., "answer": ..., "good": true}

Of a conversation, `prompt` is its messages, and each answer a list of one message. A
thumb is a rating; where the same prompt has an answer with a thumb up and one with a
thumb down, these two are a preference as well.
"""

import collections
import json
import threading
from typing import Any

from etils import epath

PREFERENCES, RATINGS = "preferences.jsonl", "ratings.jsonl"
_REMEMBERED = 1000  # prompts whose thumbs may still meet


class Feedback:
    """Appends records to the files of a folder."""

    def __init__(self, folder: str):
        self._folder = epath.Path(folder)
        self._lock = threading.Lock()
        self._rated: collections.OrderedDict[str, dict[bool, str]] = (
            collections.OrderedDict()
        )

    def prefer(self, prompt: Any, chosen: str, rejected: str) -> None:
        """Writes which of two answers is better; `prompt` is a text or messages."""
        with self._lock:
            self._prefer(prompt, chosen, rejected)

    def rate(self, prompt: Any, answer: str, good: bool) -> bool:
        """Writes a thumb; whether it made a preference with an earlier one."""
        with self._lock:
            record = {"prompt": prompt, "answer": _said(prompt, answer), "good": good}
            self._append(RATINGS, record)
            name = json.dumps(prompt, sort_keys=True)
            rated = self._rated.setdefault(name, {})
            self._rated.move_to_end(name)
            rated[good] = answer
            while len(self._rated) > _REMEMBERED:
                self._rated.popitem(last=False)
            met = len(rated) == 2 and rated[True] != rated[False]
            if met:
                self._prefer(prompt, rated[True], rated[False])
                rated.clear()
            return met

    def _prefer(self, prompt, chosen, rejected):
        record = {
            "prompt": prompt,
            "chosen": _said(prompt, chosen),
            "rejected": _said(prompt, rejected),
        }
        self._append(PREFERENCES, record)

    def _append(self, name: str, record: dict[str, Any]) -> None:
        with (self._folder / name).open("a") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _said(prompt: Any, answer: str) -> Any:
    """An answer in the form of its prompt."""
    if isinstance(prompt, str):
        return answer
    return [{"role": "assistant", "content": answer}]

"""What people think of answers, as records that preference training reads.

    preferences.jsonl   {"prompt": ..., "chosen": ..., "rejected": ...}
    ratings.jsonl       {"prompt": ..., "answer": ..., "good": true}

Of a conversation, `prompt` is its messages, and each answer a list of one message. A
thumb is a rating, and the last one of an answer counts; where the same prompt has an
answer with a thumb up and one with a thumb down, these two are a preference as well.

What tells of a person is taken out of every text, as of those in `request_log.py`.
"""

import collections
import json
import threading
from typing import Any

from etils import epath

from llm.errors import InputError
from llm.serve.request_log import scrub

PREFERENCES, RATINGS = "preferences.jsonl", "ratings.jsonl"
_REMEMBERED = 1000  # prompts whose thumbs may still meet


class Feedback:
    """Appends records to the files of a folder."""

    def __init__(self, folder: str):
        self._folder = epath.Path(folder)
        self._lock = threading.Lock()
        self._rated: collections.OrderedDict[str, dict[str, bool]] = (
            collections.OrderedDict()
        )

    def prefer(self, prompt: Any, chosen: str, rejected: str) -> None:
        """Writes which of two answers is better; `prompt` is a text or messages.

        Raises:
          InputError: answers that do not differ.
        """
        prompt, chosen, rejected = _scrubbed(prompt), scrub(chosen), scrub(rejected)
        if chosen.strip() == rejected.strip():
            raise InputError(
                got="a preference between two answers that are the same",
                want="answers that differ",
            )
        with self._lock:
            self._prefer(prompt, chosen, rejected)

    def rate(self, prompt: Any, answer: str, good: bool | None) -> bool:
        """Writes a thumb, or that it is taken back (None); whether it made a preference
        with an earlier one."""
        prompt, answer = _scrubbed(prompt), scrub(answer)
        with self._lock:
            record = {"prompt": prompt, "answer": _said(prompt, answer), "good": good}
            self._append(RATINGS, record)
            name = json.dumps(prompt, sort_keys=True)
            rated = self._rated.setdefault(name, {})
            self._rated.move_to_end(name)
            rated.pop(answer, None)
            while len(self._rated) > _REMEMBERED:
                self._rated.popitem(last=False)
            if good is None:
                return False
            same = answer.strip()
            others = [
                other
                for other, liked in rated.items()
                if liked != good and other.strip() != same
            ]
            if not others:
                rated[answer] = good
                return False
            other = others[-1]
            del rated[other]
            self._prefer(prompt, *((answer, other) if good else (other, answer)))
            return True

    def _prefer(self, prompt, chosen, rejected):
        record = {
            "prompt": prompt,
            "chosen": _said(prompt, chosen),
            "rejected": _said(prompt, rejected),
        }
        self._append(PREFERENCES, record)

    def _append(self, name: str, record: dict[str, Any]) -> None:
        with (self._folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _scrubbed(prompt: Any) -> Any:
    """A text, or messages, without what tells of a person."""
    if isinstance(prompt, str):
        return scrub(prompt)
    return [{**message, "content": scrub(message["content"])} for message in prompt]


def _said(prompt: Any, answer: str) -> Any:
    """An answer in the form of its prompt."""
    if isinstance(prompt, str):
        return answer
    return [{"role": "assistant", "content": answer}]

"""What people think of answers, as records that preference training reads.

    preferences.jsonl   {"prompt": ..., "chosen": ..., "rejected": ...}
    ratings.jsonl       {"prompt": ..., "answer": ..., "good": true}

Of a conversation, `prompt` is its messages, and each answer a list of one message. A
thumb is a rating, and the last one of an answer counts; where the same prompt has an
answer with a thumb up and one with a thumb down, these two are a preference as well,
for as long as neither thumb is taken back or turned.

What tells of a person is taken out of every text, as of those in `request_log.py`.
"""

import collections
import json
import threading
from typing import Any

from etils import epath

from llm import files, json_text
from llm.errors import InputError
from llm.serve.request_log import scrub

PREFERENCES, RATINGS = "preferences.jsonl", "ratings.jsonl"
_REMEMBERED = 1000  # prompts whose thumbs may still meet, or be taken back


class Feedback:
    """Appends records to the files of a folder."""

    def __init__(self, folder: str):
        self._folder = epath.Path(folder)
        self._lock = threading.Lock()
        self._rated: collections.OrderedDict[str, _Thumbs] = collections.OrderedDict()

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
            thumbs = self._rated.setdefault(name, _Thumbs())
            self._rated.move_to_end(name)
            while len(self._rated) > _REMEMBERED:
                self._rated.popitem(last=False)
            if paired := thumbs.take_back(answer):
                self._remove(_preference(prompt, *paired))
            if good is None:
                return False
            pair = thumbs.add(answer, good)
            if pair:
                self._prefer(prompt, *pair)
            return bool(pair)

    def _prefer(self, prompt, chosen, rejected):
        self._append(PREFERENCES, _preference(prompt, chosen, rejected))

    def _remove(self, record: dict[str, Any]) -> None:
        """Takes the last such preference out of the file."""
        path = self._folder / PREFERENCES
        lines = json_text.lines(path)
        line = json.dumps(record, ensure_ascii=False)
        if line in lines:
            del lines[len(lines) - 1 - lines[::-1].index(line)]
            files.write_text(path, "".join(f"{one}\n" for one in lines))

    def _append(self, name: str, record: dict[str, Any]) -> None:
        with (self._folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


class _Thumbs:
    """The thumbs of the answers to one prompt."""

    def __init__(self):
        self._waiting: dict[str, bool] = {}
        self._pairs: list[
            tuple[str, str]
        ] = []  # of one that is up and one that is down

    def take_back(self, answer: str) -> tuple[str, str] | None:
        """Forgets an answer's thumb; the pair that it was in, whose other waits."""
        self._waiting.pop(answer, None)
        pair = next((pair for pair in self._pairs if answer in pair), None)
        if pair:
            self._pairs.remove(pair)
            up, down = pair
            other = down if answer == up else up
            self._waiting[other] = other == up
        return pair

    def add(self, answer: str, good: bool) -> tuple[str, str] | None:
        """A thumb; with a waiting one of the other kind, a pair (up, down)."""
        others = [
            other
            for other, liked in self._waiting.items()
            if liked != good and other.strip() != answer.strip()
        ]
        if not others:
            self._waiting[answer] = good
            return None
        other = others[-1]
        del self._waiting[other]
        pair = (answer, other) if good else (other, answer)
        self._pairs.append(pair)
        return pair


def _preference(prompt: Any, chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "chosen": _said(prompt, chosen),
        "rejected": _said(prompt, rejected),
    }


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

"""Prompts as clients give them, to ids: read, checked for length, and by the guard."""

import json
from collections.abc import Sequence
from typing import Any

from llm.errors import InputError
from llm.serve.service import Service


def read(service: Service, prompt: str | list[int]) -> tuple[list[int], str]:
    """(ids, text) of a prompt after the guard."""
    given = isinstance(prompt, str)
    ids = service.ids_of(prompt) if given else service.given_ids(prompt)
    text = prompt if given else service.tokenizer.decode(prompt)
    checked = _guarded(service, text)
    return (ids, text) if checked == text else (service.ids_of(checked), checked)


def conversation(service: Service, messages: Sequence[Any]) -> tuple[list[int], str]:
    """(ids, text for the log) of messages after the guard."""
    plain = [message.plain() for message in messages]
    for message in plain:
        message["content"] = _guarded(service, message["content"])
    return service.chat_ids(plain), json.dumps(plain, ensure_ascii=False)


def _guarded(service: Service, text: str) -> str:
    """A prompt as the guard lets it pass; InputError where it does not."""
    checked = service.guard.prompt(text)
    for check, count in checked.findings.items():
        service.metrics.found(check, "prompt", count)
    if checked.blocked:
        raise InputError(
            got=f"a prompt that the check {checked.blocked!r} does not let pass",
            want="another one",
        )
    return checked.text

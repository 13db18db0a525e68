"""Prompts as clients give them, to ids: read, checked for length, and by the guard."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llm.errors import InputError
from llm.serve.service import Service


def read(
    service: Service, prompt: str | list[int], *, special: bool = True
) -> tuple[list[int], str]:
    """(ids, text) of a prompt after the guard.

    Args:
      special: whether a text is begun by the tokenizer's start; ids never are.
    """
    given = isinstance(prompt, str)
    if given:
        ids, text = service.ids_of(prompt, special=special), prompt
    else:
        ids, text = service.given_ids(prompt), service.tokenizer.decode(prompt)
    checked = _guarded(service, text)
    if checked == text:
        return ids, text
    return service.ids_of(checked, special=special), checked


def conversation(
    service: Service,
    messages: Sequence[Any],
    variables: Mapping[str, Any] | None = None,
) -> tuple[list[int], str]:
    """(ids, text for the log) of messages after the guard.

    Args:
      variables: of the chat template.
    """
    plain = [message.plain() for message in messages]
    for message in plain:
        message["content"] = _guarded(service, message["content"])
    variables = {
        name: _guarded(service, value) if isinstance(value, str) else value
        for name, value in (variables or {}).items()
    }
    return service.chat_ids(plain, variables), json.dumps(plain, ensure_ascii=False)


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

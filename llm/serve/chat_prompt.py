"""A conversation as the ids of a prompt that ends where the answer begins."""

from collections.abc import Sequence
from typing import Any

from llm.errors import InputError


def prompt_ids(tokenizer: Any, messages: Sequence[dict[str, str]]) -> list[int]:
    """By the chat template of the model; InputError where it has none or refuses."""
    if not getattr(tokenizer, "chat_template", ""):
        raise InputError(
            got="messages, for a model that has no chat template",
            want="a prompt: /v1/completions",
        )
    return with_start(tokenizer, tokenizer.encode(tokenizer.chat(messages)))


def with_start(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """The ids of a text after what a text begins with, if they lack it."""
    start = tokenizer.start()
    whole = [*ids] if [*ids[: len(start)]] == start else [*start, *ids]
    whole = whole or list(tokenizer.ends[:1])
    if not whole:
        raise InputError(
            got="an empty prompt", want="text: this model has no token to begin with"
        )
    return whole

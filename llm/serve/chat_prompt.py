"""A conversation as the ids of a prompt that ends where the answer begins."""

from collections.abc import Sequence
from typing import Any

from llm.errors import InputError
from llm.inference.prompts import with_start


def prompt_ids(tokenizer: Any, messages: Sequence[dict[str, str]]) -> list[int]:
    """By the chat template of the model; InputError where it has none or refuses."""
    if not getattr(tokenizer, "chat_template", ""):
        raise InputError(
            got="messages, for a model that has no chat template",
            want="a prompt: /v1/completions",
        )
    return with_start(tokenizer, tokenizer.encode(tokenizer.chat(messages)))

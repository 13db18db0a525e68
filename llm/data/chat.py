"""Conversations as tokens: what a chat model reads, and what it learns of them.

The template is the one that came with the tokenizer, or that was saved beside it when
the model was taught to chat. What it writes is encoded whole, so that the tokens are
those that other systems make of it. What people type is text: a control token that is
spelled out in a message becomes ordinary pieces; control ids come from the template
alone.

    ids = prompt_ids(tokenizer, [{"role": "user", "content": "hi"}])
    for ids, said in conversations(tokenizer, messages):
        said                         # of each id, the number of the message, or -1
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from llm.errors import InputError
from llm.tokenizers import answer_spans, chat_template, control_tokens
from llm.tokenizers.answer_spans import Span
from llm.tokenizers.chat_settings import SCALARS
from llm.tokenizers.chat_template import Message

Tools = Sequence[Mapping[str, Any]]
Variables = Mapping[str, Any]
# What a template is given besides; no variable may take its place.
_RESERVED = {"messages", "tools", "documents", "add_generation_prompt"}


class Conversation(NamedTuple):
    """Token ids and, of each, which message of the assistant says it (-1 for none)."""

    ids: list[int]
    said: np.ndarray


def prompt_ids(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Tools = (),
    variables: Variables | None = None,
) -> list[int]:
    """The ids that the assistant's answer follows; InputError without a template.

    Args:
      variables: of the template, such as `enable_thinking`, beside those that are saved
        with the tokenizer.
    """
    text = _view(tokenizer, messages, tools, variables).prompt(len(messages))
    return _encode(tokenizer, text, []).ids


def conversations(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Tools = (),
    variables: Variables | None = None,
) -> list[Conversation]:
    """The ids of a conversation, with the answers in them.

    Several where the template writes an answer otherwise once a question follows it:
    each answer is then learned as the model would see it at that turn.

    Raises:
      InputError: no template, one that does not take the messages, or one that ends
        answers with something that is no end of a text for this tokenizer.
    """
    sequences = answer_spans.sequences(
        _view(tokenizer, messages, tools, variables),
        controls=tokenizer.controls,
        ends=tokenizer.end_marks,
        learn_empty_think=tokenizer.chat.learn_empty_think,
    )
    made = [_encode(tokenizer, text, spans) for text, spans in sequences]
    for one in made:
        _check_end(tokenizer, one)
    return made


def _view(tokenizer, messages, tools, variables) -> chat_template.View:
    if not tokenizer.chat_template:
        raise InputError(
            got="messages for a model without a chat template",
            want="a model that was taught to chat",
            do="teach it by configs/sft.py, or give it texts",
        )
    variables = {**tokenizer.chat.template_variables, **(variables or {})}
    _check_variables(tokenizer, variables)
    if not tokenizer.chat.parse_special:
        # An assistant writes tags such as <think> itself, a user does not.
        messages = [
            control_tokens.shielded(m, tokenizer.typed(m.get("role") == "assistant"))
            if isinstance(m, Mapping)
            else m
            for m in messages
        ]
        tools = control_tokens.shielded(list(tools), tokenizer.typed(False))
        variables = control_tokens.shielded(variables, tokenizer.typed(False))
    return chat_template.view(
        tokenizer.chat_template,
        messages,
        tools=tools,
        tokens={**variables, **tokenizer.spellings},
        date=tokenizer.chat.date,
    )


def _check_variables(tokenizer, variables: Variables) -> None:
    for name, value in variables.items():
        if name in _RESERVED or name in tokenizer.spellings:
            raise InputError(
                got=f"{name} among the template's variables", want="a name of its own"
            )
        if not isinstance(value, SCALARS):
            raise InputError(
                got=f"the template's variable {name} = {str(value)[:40]}",
                want="a text, a number or a boolean",
            )
        if not re.search(rf"\b{re.escape(name)}\b", tokenizer.chat_template):
            raise InputError(
                got=f"the variable {name!r}, which the chat template does not read",
                want="a name that stands in the template",
            )


def _check_end(tokenizer, conversation: Conversation) -> None:
    spoken = np.flatnonzero(conversation.said >= 0)
    if not len(spoken):
        return
    last = conversation.ids[int(spoken[-1])]
    if last not in tokenizer.ends:
        raise InputError(
            got="a chat template that ends answers with "
            f"{tokenizer.pieces([last])[0]!r}, which ends no text of this tokenizer",
            want="a template whose answers end",
            do="add it to eos_token_id in generation_config.json before the import, or "
            "use tokenizer.chat_template=plain",
        )


def _encode(tokenizer, text: str, spans: Sequence[Span]) -> Conversation:
    whole = tokenizer.encode_with_offsets(text)
    if whole:
        ids, offsets = whole
        starts, stops = np.array(offsets, np.int64).reshape(-1, 2).T
        said = np.full(len(ids), -1)
        for span in spans:
            said[(starts < span.stop) & (stops > span.start)] = span.message
        return Conversation(list(ids), said)
    # In pieces, each inside a span or outside of all, and control ids between them.
    edges = sorted({0, len(text), *(e for s in spans for e in (s.start, s.stop))})
    ids, said = [], []
    for start, stop in itertools.pairwise(edges):
        message = [s.message for s in spans if s.start <= start < s.stop] or [-1]
        new = tokenizer.encode_shielded(text[start:stop], first=start == 0)
        ids += new
        said += message * len(new)
    return Conversation(ids, np.array(said, int))

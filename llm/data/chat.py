"""Conversations as tokens: what a chat model is given, and what it learns of them.

The template is the one that came with the tokenizer, or that was saved beside it when
the model was taught to chat. What it writes is encoded whole, so that the tokens are
those that other systems make of it. In our own tokenizers, special tokens have no
spelling that a text could hold: the template's `bos_token` and `eos_token` stand for
the ids themselves, and nobody can write them into a message.

    ids = prompt_ids(tokenizer, [{"role": "user", "content": "hi"}])
    ids, learned = conversation(tokenizer, messages)     # learned: bools, one an id
"""

import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from llm.data import chat_template
from llm.data.chat_template import Message
from llm.errors import InputError

_SPECIAL = re.compile(f"({chat_template.mark('bos')}|{chat_template.mark('eos')})")


class Conversation(NamedTuple):
    """Token ids and, of each, whether the assistant says it (bool)."""

    ids: list[int]
    learned: np.ndarray


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The ids that the assistant's answer follows; InputError without a template."""
    template, tokens = _template(tokenizer), tokenizer.spellings
    text = chat_template.prompt(template, messages, tokens=tokens)
    return _encode(tokenizer, text, []).ids


def conversation(tokenizer: Any, messages: Sequence[Message]) -> Conversation:
    """The ids of a whole conversation, with what of it is learned.

    Raises:
      InputError: no template, one that does not take the messages, or one that ends
        answers with something that is no end of a text for this tokenizer.
    """
    template, tokens = _template(tokenizer), tokenizer.spellings
    text, spans = chat_template.render(template, messages, tokens=tokens)
    made = _encode(tokenizer, text, spans)
    if made.learned.any():
        last = made.ids[int(np.flatnonzero(made.learned)[-1])]
        if last not in tokenizer.ends:
            shown = tokenizer.pieces([last])[0]
            raise InputError(
                got=f"a chat template that ends answers with {shown!r}, which ends no "
                "text of this tokenizer",
                want="a template whose answers end",
                do="use tokenizer.chat_template=plain",
            )
    return made


def _template(tokenizer) -> str:
    if not tokenizer.chat_template:
        raise InputError(
            got="messages for a model without a chat template",
            want="a model that was taught to chat",
            do="teach it by configs/sft.py, or give it texts",
        )
    return tokenizer.chat_template


def _encode(tokenizer, text: str, spans: list[range]) -> Conversation:
    if hasattr(tokenizer, "encode_with_offsets"):
        ids, offsets = tokenizer.encode_with_offsets(text)
        starts, stops = np.array(offsets, np.int64).reshape(-1, 2).T
        learned = np.zeros(len(ids), bool)
        for span in spans:
            learned |= (starts < span.stop) & (stops > span.start)
        return Conversation(list(ids), learned)
    # Ours: the text in pieces, each inside a span or outside of all, and special ids.
    edges = sorted({0, len(text), *(e for s in spans for e in (s.start, s.stop))})
    ids, learned = [], []
    for start, stop in itertools.pairwise(edges):
        inside = any(span.start <= start < span.stop for span in spans)
        new = []
        for part in _SPECIAL.split(text[start:stop]):
            if _SPECIAL.fullmatch(part):
                bos = part == tokenizer.spellings["bos_token"]
                new.append(tokenizer.bos_id if bos else tokenizer.eos_id)
            elif part:
                new += tokenizer.encode(part)
        ids += new
        learned += [inside] * len(new)
    return Conversation(ids, np.array(learned, bool))

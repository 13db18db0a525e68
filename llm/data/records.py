"""Records as tokens: questions with answers, pairs, and preferences.

A record is one of

    {"messages": [{"role": ..., "content": ...}, ...]}      a conversation
    {"prompt": ..., "completion": ...}                      texts as they are
    {"source": ..., "target": ...}                          for an encoder-decoder
    {"prompt": ..., "chosen": ..., "rejected": ...}         texts, or messages

and stands in `meta["record"]` of a document, whose text is what a person reads of it.
Its tokens lie in the shards like those of any document, and the label of each says
which of the PARTS it belongs to: what is given, or what is learned.

`D documents`
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from llm.data import chat
from llm.errors import InputError

# What is given, what answers it, and the same of the answer that was not preferred.
PARTS = ("given", "answer", "given, rejected", "answer, rejected")
GIVEN, ANSWER, REJECTED_GIVEN, REJECTED_ANSWER = range(4)
FORMS = (
    ("messages",),
    ("prompt", "completion"),
    ("source", "target"),
    ("prompt", "chosen", "rejected"),
)


class Encoded(NamedTuple):
    """Token ids of a record and the part of each, int16."""

    ids: list[int]
    parts: np.ndarray


def form_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Which of the FORMS a record has; InputError for none of them."""
    for form in FORMS:
        if set(record) == set(form):
            return form
    raise InputError(
        got=f"a record of {', '.join(map(str, record)) or 'nothing'}",
        want=" | ".join(", ".join(form) for form in FORMS),
    )


def encode(record: Mapping[str, Any], tokenizer: Any) -> Encoded:
    """The tokens of a record, by the chat template where it has messages.

    Raises:
      InputError: another form, or messages that the template does not take.
    """
    form = form_of(record)
    if form == ("messages",):
        return _conversation(tokenizer, record["messages"])
    if form == ("prompt", "completion"):
        return _texts(tokenizer, record["prompt"], record["completion"])
    if form == ("source", "target"):
        end = list(tokenizer.ends[:1])
        source = [*tokenizer.encode(record["source"]), *end]
        target = [*tokenizer.encode(record["target"]), *end]
        parts = [GIVEN] * len(source) + [ANSWER] * len(target)
        return Encoded([*source, *target], np.array(parts, np.int16))
    chosen, rejected = (
        _answered(tokenizer, record["prompt"], record[which])
        for which in ("chosen", "rejected")
    )
    parts = np.concatenate([chosen.parts, rejected.parts + REJECTED_GIVEN])
    return Encoded([*chosen.ids, *rejected.ids], parts)


def sizes(split: Any, parts: tuple[int, ...]) -> np.ndarray:
    """Of each document of a split, the tokens that belong to the parts; int64 [D]."""
    marked = np.isin(np.asarray(split.labels), parts)
    before = np.concatenate([[0], np.cumsum(marked, dtype=np.int64)])
    return np.diff(before[split.offsets])


def _answered(tokenizer, prompt, answer) -> Encoded:
    if isinstance(prompt, str) and isinstance(answer, str):
        return _texts(tokenizer, prompt, answer)
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    said = (
        [{"role": "assistant", "content": answer}]
        if isinstance(answer, str)
        else answer
    )
    whole = _conversation(tokenizer, [*asked, *said])
    # Only the last answer is preferred or not; those before it are given.
    given = chat.prompt_ids(tokenizer, asked)
    shared = whole.ids[: len(given)] == given
    whole.parts[: len(given) if shared else 0] = GIVEN
    return whole


def _conversation(tokenizer, messages) -> Encoded:
    ids, learned = chat.conversation(tokenizer, messages)
    return Encoded(ids, np.where(learned, ANSWER, GIVEN).astype(np.int16))


def _texts(tokenizer, prompt: str, completion: str) -> Encoded:
    given = [*tokenizer.start(), *tokenizer.encode(prompt)]
    answer = [*tokenizer.encode(completion), *tokenizer.ends[:1]]
    parts = [GIVEN] * len(given) + [ANSWER] * len(answer)
    return Encoded([*given, *answer], np.array(parts, np.int16))

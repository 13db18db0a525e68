"""Records as tokens: questions with answers, pairs, and preferences.

A record is one of

    {"messages": [{"role": ..., "content": ...}, ...]}      a conversation
    {"prompt": ..., "completion": ...}                      texts as they are
    {"source": ..., "target": ...}                          for an encoder-decoder
    {"prompt": ..., "chosen": ..., "rejected": ...}         texts, or messages
    {"prompt": ..., "completion": ..., "label": bool}       an answer, good or bad
    {"messages": [...], "label": bool}                      of messages, the last answer

those of messages also with "tools" and with "variables" of the chat template. A record
stands in `meta["record"]` of a document, whose text is what a person reads of it. A
message may have a weight: with 0 it is read and not learned. The tokens of a record lie
in the shards like those of any document, and the label of each says which of the PARTS
it belongs to: what is given, or what is learned. A conversation whose template writes
answers otherwise once a question follows them becomes several sequences of tokens.

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
    ("prompt", "completion", "label"),
    ("messages", "label"),
)


class Encoded(NamedTuple):
    """Token ids of a record and the part of each, int16."""

    ids: list[int]
    parts: np.ndarray


def form_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Which of the FORMS a record has; InputError for none of them."""
    for form in FORMS:
        if set(record) - {"tools", "variables"} == set(form):
            return form
    raise InputError(
        got=f"a record of {', '.join(map(str, record)) or 'nothing'}",
        want=" | ".join(", ".join(form) for form in FORMS),
    )


def encode(record: Mapping[str, Any], tokenizer: Any) -> list[Encoded]:
    """The tokens of a record, by the chat template where it has messages.

    Raises:
      InputError: another form, or messages that the template does not take.
    """
    form = form_of(record)
    given = record.get("tools", ()), record.get("variables", {})
    if "label" in form:
        answer = _labelled(tokenizer, record, given)
        return [answer if record["label"] else as_rejected(answer)]
    if form == ("messages",):
        learned = {n for n, m in enumerate(record["messages"]) if m.get("weight", 1)}
        return _conversation(tokenizer, record["messages"], given, learned)
    if form == ("prompt", "completion"):
        return [_texts(tokenizer, record["prompt"], record["completion"])]
    if form == ("source", "target"):
        end = list(tokenizer.ends[:1])
        source = [*tokenizer.encode(record["source"]), *end]
        target = [*tokenizer.encode(record["target"]), *end]
        parts = [GIVEN] * len(source) + [ANSWER] * len(target)
        return [Encoded([*source, *target], np.array(parts, np.int16))]
    chosen, rejected = (
        answered(tokenizer, record["prompt"], record[which], given)
        for which in ("chosen", "rejected")
    )
    parts = np.concatenate([chosen.parts, as_rejected(rejected).parts])
    return [Encoded([*chosen.ids, *rejected.ids], parts)]


def sizes(split: Any, parts: tuple[int, ...]) -> np.ndarray:
    """Of each document of a split, the tokens that belong to the parts; int64 [D]."""
    marked = np.isin(np.asarray(split.labels), parts)
    before = np.concatenate([[0], np.cumsum(marked, dtype=np.int64)])
    return np.diff(before[split.offsets])


def as_rejected(answer: Encoded) -> Encoded:
    """An answer with its prompt, as the one that was not preferred."""
    return answer._replace(parts=answer.parts + np.int16(REJECTED_GIVEN))


def _labelled(tokenizer, record, given) -> Encoded:
    """The one answer of a record that says whether it is a good one."""
    if "completion" in record:
        return _texts(tokenizer, record["prompt"], record["completion"])
    *asked, said = record["messages"]
    return answered(tokenizer, asked, [said], given)


def answered(
    tokenizer: Any, prompt: Any, answer: Any, given: tuple[Any, Any] = ((), {})
) -> Encoded:
    """A prompt and an answer, each a text or messages; only the answer is learned.

    Args:
      given: definitions of tools, and variables of the template.

    Raises:
      InputError: an answer of several turns that the template writes in several ways.
    """
    if isinstance(prompt, str) and isinstance(answer, str):
        return _texts(tokenizer, prompt, answer)
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    said = (
        [{"role": "assistant", "content": answer}]
        if isinstance(answer, str)
        else answer
    )
    # Only what follows the prompt is preferred or not; answers before it are given.
    learned = set(range(len(asked), len(asked) + len(said)))
    *others, whole = _conversation(tokenizer, [*asked, *said], given, learned)
    if any((one.parts == ANSWER).any() for one in others):
        raise InputError(
            got="a preferred or rejected answer of several turns, with a chat template "
            "that writes each of them otherwise once the next follows",
            want="one answer, or a template that leaves what it wrote",
        )
    return whole


def _conversation(
    tokenizer, messages, given: tuple[Any, Any], learned: set[int]
) -> list[Encoded]:
    """The sequences of a conversation of which these messages are learned.

    Args:
      given: definitions of tools, and variables of the template.
    """
    made = []
    for ids, said in chat.conversations(tokenizer, messages, *given):
        parts = np.where(np.isin(said, list(learned)), ANSWER, GIVEN).astype(np.int16)
        made.append(Encoded(ids, parts))
    # What only repeats what is given teaches nothing, unless there is nothing else.
    return [one for one in made if (one.parts == ANSWER).any()] or made[-1:]


def _texts(tokenizer, prompt: str, completion: str) -> Encoded:
    given = [*tokenizer.start(), *tokenizer.encode(prompt)]
    answer = [*tokenizer.encode(completion), *tokenizer.ends[:1]]
    parts = [GIVEN] * len(given) + [ANSWER] * len(answer)
    return Encoded([*given, *answer], np.array(parts, np.int16))

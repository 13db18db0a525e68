"""Records for tuning in the forms that others write, as those of `record_tokens.py`.

    {"messages": [...]}  {"conversations": [...]}           OpenAI, ShareGPT
    {"instruction": ..., "input": ..., "output": ...}       Alpaca, also with history
    {"instruction": ..., "context": ..., "response": ...}   Dolly
    {"question" | "query" | "problem" | "prompt": ..., "answer" | "response" | …: ...}
    {"prompt": ..., "completion": ...}      {"source": ..., "target": ...}
    {"prompt": ..., "completion": ..., "label": bool}       KTO, also of messages
    {"prompt": ..., "chosen": ..., "rejected": ...}         UltraFeedback and others
    {"chosen": ..., "rejected": ...}                        whole dialogues, HH-RLHF
    {"text": ..., "label": ...}                             a class

Messages come before fields that repeat them. A field that is read under no form is
named; an answer that belongs to another prompt is not learned, nor one that is marked
as bad, unless `labels` keeps the marks.

    record, unused = read(item)
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llm.data.record_messages import conversation, text, tools
from llm.errors import InputError

_TALKS = ("messages", "conversations", "conversation")
_QUESTIONS = ("instruction", "prompt", "question", "query", "problem", "inputs")
_ANSWERS = ("output", "response", "completion", "answer", "solution", "targets")
_CONTEXTS = ("input", "context")
_MARKS = ("label", "kto_tag", "good")  # of an answer: whether people liked it
_BAD = ("false", "0", "-1", "no", "bad", "undesirable", "rejected", "dislike")
_GOOD = ("true", "1", "yes", "good", "desirable", "chosen", "like")
_TURN = re.compile(r"(?:^|\n\n)(Human|User|Assistant):")  # of HH-RLHF and the like
_FRACTION = re.compile(r"[-+]?\d*[.,]\d+(?:[eE][-+]?\d+)?")  # a label, and no class
# Characters of a prompt that answers do not begin with by chance: of both answers of a
# pair, and of one answer, which may well say a question again.
_REPEATED_BY_BOTH, _REPEATED = 8, 32


class Disliked(ValueError):
    """An answer that people did not like, which is not learned as a good one."""


class _Item:
    """The fields of an item that have a value, and which of them were read."""

    def __init__(self, item: Mapping[str, Any]):
        self.fields = {n: v for n, v in item.items() if v is not None}
        self.read: set[str] = set()
        self.unused: set[str] = set()  # within messages

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return self.fields[name]

    def one_of(self, names: Sequence[str], what: str) -> str:
        """The name of the only field of these; '' for none, ValueError for two."""
        present = [name for name in names if self.fields.get(name) not in (None, "")]
        different = {str(self.fields[name]) for name in present}
        if len(different) > 1:
            raise ValueError(f"{' and '.join(present)}: which of them is the {what}?")
        self.read.update(present)
        return next(iter(present or [name for name in names if name in self]), "")

    def left(self) -> list[str]:
        """Fields with something in them that nobody read."""
        unread = {n for n, v in self.fields.items() if v not in ("", [], {})}
        return sorted((unread - self.read) | self.unused)


def canonical(item: Mapping[str, Any], *, system: str = "", chat: bool = False) -> dict:
    """A record in one of our forms, as `read`.

    >>> canonical({"instruction": "Add.", "input": "1 2", "output": "3"})["messages"][0]
    {'role': 'user', 'content': 'Add.\\n\\n1 2'}
    """
    return read(item, system=system, chat=chat)[0]


def read(
    item: Mapping[str, Any],
    *,
    system: str = "",
    chat: bool = False,
    labels: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """(a record in one of our forms, the names of the fields that are not in it).

    Args:
      system: a system message for conversations that have none.
      chat: whether prompts and completions that are texts become messages, too.
      labels: whether answers are to be labelled as good or bad, and both are kept.

    Raises:
      ValueError: no known form, or something that cannot be honoured.
      Disliked: without `labels`, an answer that is marked as bad.
      InputError: a form of which no record can be.
    """
    of = _Item(item)
    _check_weight(of)
    mark, liked = _mark(of)
    if liked is False and not labels:
        raise Disliked(f"{mark}: the answer is marked as bad")
    named = of.one_of(("system", "system_prompt"), "system message")
    own = text(of[named], named) if named else ""
    # Who is told how to behave is in a conversation, whatever the fields are called.
    record = _record(of, own or system, chat or bool(own))
    if own and {"role": "system", "content": own} not in _first_messages(record):
        raise ValueError(f"{named} of a record without messages, or with another one")
    defined = of.one_of(("tools", "functions"), "list of tools")
    if defined and of[defined] and (made := tools(of[defined])):
        if not any(isinstance(value, list) for value in record.values()):
            raise ValueError(f"{defined} of a record without messages")
        record["tools"] = made
    if "chat_template_kwargs" in of and (variables := of["chat_template_kwargs"]):
        if not any(isinstance(value, list) for value in record.values()):
            raise ValueError("chat_template_kwargs of a record without messages")
        if not isinstance(variables, Mapping):
            raise ValueError("chat_template_kwargs that are no object")
        record["variables"] = dict(variables)
    if labels and "rejected" not in record:
        record = _labelled(record, liked)
    return record, of.left()


def _record(of: _Item, system: str, chat: bool) -> dict[str, Any]:
    if "chosen" in of and "rejected" in of:
        return _preference(of, system, chat)
    if "text" in of and "label" in of:
        return {"text": text(of["text"]), "label": _class(of["label"])}
    if "source" in of and "target" in of and isinstance(of.fields["source"], str):
        return {"source": text(of["source"]), "target": text(of["target"])}
    if name := _talk(of):
        messages = conversation(of[name], system, of.unused)
        _note_repeated(of, messages)
        if messages and messages[-1]["role"] in ("assistant", "tool"):
            return {"messages": messages}
    asked, answer = _asked(of, system), _answer(of)
    if not answer and name:
        return {"messages": asked}
    if not answer or asked == []:
        raise ValueError(_unknown(of))
    said = of[answer]
    if isinstance(said, int | float) and not isinstance(said, bool):
        said = str(said)
    if isinstance(asked, str):
        if answer == "completion" and isinstance(said, str) and not chat:
            if len(asked) >= _REPEATED:
                said = said.removeprefix(asked)
            return {"prompt": asked, "completion": said}
        asked = _user(asked, system)
    if isinstance(said, str):
        said = [{"role": "assistant", "content": said}]
    return {"messages": [*asked, *conversation(said, unused=of.unused)]}


def _talk(of: _Item) -> str:
    """The name of the field that has messages; '' for none."""
    for name in _TALKS:
        if isinstance(of.fields.get(name), list):
            return name
        if name in of:
            raise ValueError(f"{name} that are no list")
    return ""


def _note_repeated(of: _Item, messages: Sequence[Mapping[str, Any]]) -> None:
    """Fields that only say again what stands in the messages are read."""
    contents = {str(m["content"]).strip() for m in messages}
    for name in (*_QUESTIONS, *_ANSWERS, *_CONTEXTS):
        if str(of.fields.get(name, "")).strip() in contents:
            of.read.add(name)


def _answer(of: _Item) -> str:
    """The field of the answer: of two, the one that has the other in it."""
    present = {n: str(of.fields[n]) for n in _ANSWERS if of.fields.get(n)}
    for name, said in present.items():
        if len(present) > 1 and all(other in said for other in present.values()):
            of.read.update(n for n, other in present.items() if other == said)
            return name
    return of.one_of(_ANSWERS, "answer")


def _first_messages(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first message of a conversation, with nothing but role and content."""
    talks = (record.get(name) for name in ("messages", "prompt"))
    return [
        {n: talk[0][n] for n in ("role", "content")}
        for talk in talks
        if isinstance(talk, list) and talk
    ]


def _asked(of: _Item, system: str) -> str | list[dict[str, Any]]:
    """What is asked, a text or messages; [] if the item has no field for it."""
    if name := _talk(of):
        return conversation(of[name], system, of.unused)
    name = of.one_of(_QUESTIONS, "question")
    if not name:  # of which a bare input is one
        name = "input" if "input" in of else ""
    if not name:
        return []
    question = of[name]
    if isinstance(question, list):
        return conversation(question, system, of.unused)
    text(question, name)
    contexts = [c for c in _CONTEXTS if c != name and c in of]
    if name == "prompt" and not contexts:
        return question
    more = [text(of[c], c) for c in contexts]
    before = _history(of["history"] or []) if "history" in of else []
    made = _user("\n\n".join(filter(None, [question, *more])), system)
    return [*made[:-1], *before, made[-1]]


def _history(pairs: Any) -> list[dict[str, Any]]:
    """Turns before a question, of Alpaca: [[question, answer], ...]."""
    made = []
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        if not (isinstance(pair, list | tuple) and len(pair) == 2):
            raise ValueError("a history that is no list of [question, answer]")
        made.append({"role": "user", "content": text(pair[0], "history")})
        # What was answered before is read, as Alpaca has it, not learned.
        said = text(pair[1], "history")
        made.append({"role": "assistant", "content": said, "weight": 0})
    return made


def _check_weight(of: _Item) -> None:
    """Raises Disliked for a record of weight 0."""
    weight = of.fields.get("weight")
    if isinstance(weight, int | float):
        if of["weight"] == 0:
            raise Disliked("weight 0: the record is not to be learned")
        if weight != 1:
            raise ValueError(f"a weight of {weight}: only 0 and 1 are honoured")


def _mark(of: _Item) -> tuple[str, bool | None]:
    """The mark of an answer, and whether people liked it; None where it has none."""
    liked = "", None
    # Of a class, and of a pair, a label says something else.
    for name in () if "text" in of or "chosen" in of else _MARKS:
        mark = str(of.fields.get(name, "")).strip().lower().removesuffix(".0")
        if mark in (*_BAD, *_GOOD):
            of.read.add(name)
            liked = f"{name} {mark}", mark in _GOOD
        if mark in _BAD:
            break
    return liked


def _labelled(record: dict[str, Any], liked: bool | None) -> dict[str, Any]:
    """A record of one answer with its label; the answer ends it."""
    if "messages" not in record and "completion" not in record:
        raise ValueError(f"a label of {' and '.join(record)}: want a prompt and answer")
    if liked is None:
        raise ValueError("no label that says whether the answer is good or bad")
    last = record.get("messages", [{"role": "assistant"}])[-1]
    if last["role"] != "assistant" or not last.get("weight", 1):
        raise ValueError("a label of messages that do not end with an answer to learn")
    return record | {"label": liked}


def _class(label: Any) -> str:
    if isinstance(label, list | dict):
        raise InputError(
            got=f"several labels of one text: {str(label)[:60]}",
            want="one class for each text: multi-label data are not supported",
        )
    if isinstance(label, float) or (
        isinstance(label, str) and _FRACTION.fullmatch(label.strip())
    ):
        raise InputError(
            got=f"the label {label}, which is no class but a number",
            want="texts or whole numbers as classes: regression is not supported",
            do="write classes as texts",
        )
    return str(label)


def _preference(of: _Item, system: str, chat: bool) -> dict[str, Any]:
    chosen, rejected = of["chosen"], of["rejected"]
    whole = [
        isinstance(a, list) and bool(a) and not _answers(a[0])
        for a in (chosen, rejected)
    ]
    if all(whole) and isinstance(of.fields.get("prompt"), str | None):
        # Whole dialogues, which say themselves what is asked; often others repeat it.
        for name in ("messages", "conversations"):
            of.read.add(name)
        asked = _user(of["prompt"], system) if "prompt" in of else []
    else:
        asked = _asked(of, system)
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _texts_preferred(asked, chosen, rejected, system, chat)
    chosen, rejected = (_said(answer, of.unused) for answer in (chosen, rejected))
    if isinstance(asked, str):
        asked = _user(asked, system)
    asked = _without_answer(asked, chosen, rejected)
    if isinstance(chosen, str) or isinstance(rejected, str):
        chosen, rejected = (_behind(asked, answer) for answer in (chosen, rejected))
        return {"prompt": asked, "chosen": chosen, "rejected": rejected}
    return _dialogues(asked, chosen, rejected, system)


def _without_answer(asked, chosen, rejected) -> list[dict[str, Any]]:
    """What is asked, without the answer that some sets put behind it."""
    if not asked or asked[-1]["role"] != "assistant":
        return asked
    firsts = [a if isinstance(a, str) else a[0]["content"] for a in (chosen, rejected)]
    if any(not isinstance(a, str) and not _answers(a[0]) for a in (chosen, rejected)):
        return asked  # they go on with a question
    if str(asked[-1]["content"]).strip() not in [str(f).strip() for f in firsts]:
        raise ValueError("a prompt that ends with an answer, neither of the two")
    return asked[:-1]


def _dialogues(asked, chosen, rejected, system) -> dict[str, Any]:
    """Answers as messages, which may begin with the prompt or with each other."""
    chosen, rejected = (_behind(asked, answer) for answer in (chosen, rejected))
    shared = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        shared += 1
    asked, rest = [*asked, *chosen[:shared]], (chosen[shared:], rejected[shared:])
    starts = asked and asked[0]["role"] == "system"
    if system and not starts:
        asked = [{"role": "system", "content": system}, *asked]
    if not any(rest):  # told apart by the reader, which counts it
        return {"prompt": asked[:-1], "chosen": asked[-1:], "rejected": asked[-1:]}
    if not all(rest):
        raise ValueError("one answer is the beginning of the other")
    if any(part[0]["role"] != "assistant" for part in rest):
        raise ValueError("chosen and rejected answer different prompts")
    if not asked:
        raise ValueError("chosen and rejected without a prompt")
    return {"prompt": asked, "chosen": rest[0], "rejected": rest[1]}


def _behind(asked, answer):
    """An answer without the prompt that it begins with; ValueError for another one."""
    if isinstance(answer, str) or not answer or answer[0]["role"] == "assistant":
        return answer
    for prompt in (asked, [m for m in asked if m["role"] != "system"]):
        if answer[: len(prompt)] == prompt:
            return answer[len(prompt) :]
    with_system = answer[0]["role"] == "system" and answer[1 : 1 + len(asked)] == asked
    if with_system:
        raise ValueError("an answer with a system message that its prompt has not")
    raise ValueError("an answer to another prompt")


def _texts_preferred(asked, chosen: str, rejected: str, system: str, chat: bool):
    """Answers as texts, with a prompt, or as two whole dialogues."""
    if asked == []:
        talks = [_turns(answer) for answer in (chosen, rejected)]
        if all(talks):
            return _dialogues([], *talks, system)
        asked = _beginning(chosen, rejected)
        chosen, rejected = chosen[len(asked) :], rejected[len(asked) :]
        if not _is_prompt(asked, chosen, rejected):
            raise ValueError("chosen and rejected without a prompt")
    elif isinstance(asked, str):
        if len(asked.strip()) >= _REPEATED_BY_BOTH and all(
            answer.startswith(asked) for answer in (chosen, rejected)
        ):
            chosen, rejected = chosen[len(asked) :], rejected[len(asked) :]
        talk = _turns(asked)
        if talk and talk[-1] == {"role": "assistant", "content": ""}:
            own = talk[0]["role"] == "system"
            asked = [*([_system(system)] if system and not own else []), *talk[:-1]]
            chosen, rejected = chosen.strip(), rejected.strip()
    if isinstance(asked, list):
        asked = _without_answer(asked, chosen, rejected)
    elif chat:
        asked = _user(asked, system)
    return {"prompt": asked, "chosen": chosen, "rejected": rejected}


def _turns(dialogue: str) -> list[dict[str, str]]:
    """The messages of a dialogue as HH-RLHF writes it; [] for another text.

    What stands before the first turn is a system message, if a user speaks then and an
    assistant at the end: other texts with such a line stay texts.
    """
    before, *parts = _TURN.split(dialogue)
    roles = {"Human": "user", "User": "user", "Assistant": "assistant"}
    turns = [
        {"role": roles[who], "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    if not turns or not before.strip():
        return turns
    talk = turns[0]["role"] == "user" and turns[-1]["role"] == "assistant"
    return [{"role": "system", "content": before.strip()}, *turns] if talk else []


def _beginning(one: str, other: str) -> str:
    """What two texts begin with alike, up to the last white space in it."""
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    while 0 < length < max(len(one), len(other)) and not one[length - 1].isspace():
        length -= 1
    return one[:length]


def _is_prompt(asked: str, chosen: str, rejected: str) -> bool:
    """Whether two texts begin alike because both repeat a prompt, not by chance."""
    shorter = min(len(chosen), len(rejected))
    return len(asked.strip()) >= _REPEATED_BY_BOTH and len(asked) >= shorter / 2


def _answers(message: Any) -> bool:
    role = message.get("role", message.get("from")) if isinstance(message, dict) else ""
    return role in ("assistant", "gpt", "bot", "chatgpt", "model", "function_call")


def _said(answer: Any, unused: set[str]) -> str | list[dict[str, Any]]:
    if isinstance(answer, str):
        return answer
    return conversation(answer if isinstance(answer, list) else [answer], "", unused)


def _system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def _user(content: str, system: str) -> list[dict[str, str]]:
    own = [_system(system)] if system else []
    return [*own, {"role": "user", "content": content}]


def _unknown(of: _Item) -> str:
    return f"no known form; its fields: {', '.join(map(str, of.fields)) or 'none'}"

"""Instruction data of your own: JSON or JSON lines, in the forms that others write.

    {"messages": [{"role": "user", "content": ...}, ...]}               OpenAI
    {"conversations": [{"from": "human", "value": ...}, ...]}           ShareGPT
    {"instruction": ..., "input": ..., "output": ...}                   Alpaca
    {"prompt": ..., "completion": ...}      {"source": ..., "target": ...}
    {"prompt": ..., "chosen": ..., "rejected": ...}      also with one of the first
                                                         three as the prompt
    {"text": ..., "label": ...}

Each becomes one of the records of `llm/data/records.py`, or a labelled text. All of a
file are of one kind; a field that a form does not know is left out. Records that say
nothing to learn, such as a conversation without an answer, are left out and counted,
with their numbers. A group is what is asked: the same question never stands on both
sides of a split.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from llm.document import Document, Source
from llm.errors import InputError

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.jsonl"))}

ROLES = ("system", "user", "assistant", "tool")
_ROLES = {
    "human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant",
    "developer": "system",
}  # fmt: skip
_SUFFIXES = (".json", ".jsonl", ".ndjson")


def make(
    *, path: str = "", system: str = "", chat: bool = False, max_documents: int = 0
) -> Source:
    """Makes the source.

    Args:
      path: a file, or a folder of them.
      system: a system message for every conversation that has none.
      chat: whether prompts and completions that are texts become messages, too.
      max_documents: at most so many records, evenly spread; 0 takes all.

    Raises:
      InputError: no such file, one that is not JSON, or records of no known form.
    """

    def documents(skip: Callable[[str, str], None]) -> Iterator[Document]:
        found = [item for file in _files(path) for item in _read(file)]
        count = min(max_documents or len(found), len(found))
        for i in range(count):
            id, item = found[i * len(found) // count]
            try:
                record = canonical(item, system=system, chat=chat)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise InputError(
                    got=f"{id}: {str(item)[:100]} ({type(error).__name__}: {error})",
                    want="a record of one of the forms of llm/sources/records.py",
                ) from error
            reason = _nothing(record)
            if reason:
                skip(reason, id)
            else:
                yield _document(id, record)

    return documents


def canonical(item: dict[str, Any], *, system: str = "", chat: bool = False) -> dict:
    """A record in one of our forms; KeyError, TypeError or ValueError for no known one.

    >>> canonical({"instruction": "Add.", "input": "1 2", "output": "3"})["messages"][0]
    {'role': 'user', 'content': 'Add.\\n\\n1 2'}
    """
    if "text" in item and "label" in item:
        return {"text": _text(item["text"]), "label": str(item["label"])}
    if "source" in item and "target" in item:
        return {"source": _text(item["source"]), "target": _text(item["target"])}
    asked = _asked(item, system)
    if "chosen" in item and "rejected" in item:
        chosen, rejected = (_said(item[which]) for which in ("chosen", "rejected"))
        if isinstance(asked, str) and not (
            isinstance(chosen, str) and isinstance(rejected, str)
        ):
            asked = _user(asked, system)
        if isinstance(asked, str) and chat:
            asked = _user(asked, system)
        if asked == []:  # whole conversations that differ in their last answer
            asked, chosen = chosen[:-1], chosen[-1:]
            rejected = rejected[-1:]
        return {"prompt": asked, "chosen": chosen, "rejected": rejected}
    if "completion" in item:
        if isinstance(asked, str) and not chat:
            return {"prompt": asked, "completion": _text(item["completion"])}
        asked = _user(asked, system) if isinstance(asked, str) else asked
        answer = {"role": "assistant", "content": _text(item["completion"])}
        return {"messages": [*asked, answer]}
    if "output" in item and "instruction" in item:
        asked = [*asked, {"role": "assistant", "content": _text(item["output"])}]
    if not asked or isinstance(asked, str):
        raise ValueError("nothing that is asked, or no answer")
    return {"messages": asked}


def _asked(item, system) -> str | list[dict[str, str]]:
    """What is asked, a text or messages; [] if the item has no field for it."""
    if "messages" in item or "conversations" in item:
        said = [_message(m) for m in item.get("messages") or item["conversations"]]
        system = item.get("system") or system
        starts = said and said[0]["role"] == "system"
        own = [{"role": "system", "content": system}] if system and not starts else []
        return [*own, *said]
    if "instruction" in item:
        question = "\n\n".join(
            _text(item[n]) for n in ("instruction", "input") if item.get(n)
        )
        return _user(question, item.get("system") or system)
    if "prompt" in item:
        prompt = item["prompt"]
        return prompt if isinstance(prompt, str) else [_message(m) for m in prompt]
    return []


def _said(answer: Any) -> str | list[dict[str, str]]:
    if isinstance(answer, str):
        return answer
    return [_message(m) for m in (answer if isinstance(answer, list) else [answer])]


def _message(message: dict[str, Any]) -> dict[str, str]:
    role = message["role"] if "role" in message else message["from"]
    content = message["content"] if "content" in message else message["value"]
    role = _ROLES.get(role, _text(role))
    if role not in ROLES:
        raise ValueError(f"role {role!r:.40}, not one of {', '.join(ROLES)}")
    return {"role": role, "content": _text(content)}


def _user(text: str, system: str) -> list[dict[str, str]]:
    own = [{"role": "system", "content": system}] if system else []
    return [*own, {"role": "user", "content": text}]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def _nothing(record: dict[str, Any]) -> str:
    """Why there is nothing to learn, or ''."""
    if "messages" in record:
        answers = [m for m in record["messages"] if m["role"] == "assistant"]
        return "" if any(m["content"] for m in answers) else "no answer to learn"
    if "rejected" in record:
        same = record["chosen"] == record["rejected"]
        return "chosen and rejected are the same" if same else ""
    answer = next(record[n] for n in ("completion", "target", "text") if n in record)
    return "" if answer.strip() else "nothing to learn"


def _document(id: str, record: dict[str, Any]) -> Document:
    asked = next(
        record[n] for n in ("prompt", "source", "messages", "text") if n in record
    )
    if "messages" in record:
        places = [i for i, m in enumerate(asked) if m["role"] == "assistant"]
        asked = asked[: places[0]]
    group = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    if "label" in record:
        meta, text = {"label": record["label"]}, record["text"]
    else:
        meta, text = {"record": record}, readable(record)
    size = len(text.encode("utf-8", errors="surrogatepass"))
    return Document(id, text, "records", group, "record", size, meta)


def readable(record: dict[str, Any]) -> str:
    """What a person reads of a record, and what makes two of them the same."""
    parts = []
    for value in record.values():
        if isinstance(value, str):
            parts.append(value)
        else:
            parts += [f"{m['role']}: {m['content']}" for m in value]
    return "\n\n".join(parts)


def _files(path: str) -> list[pathlib.Path]:
    if not path:
        raise InputError(
            got="source 'records' without a path",
            want="a JSON or JSON-lines file, or a folder of them",
            do="name one: --config=configs/sft.py:data=PATH",
        )
    root = pathlib.Path(path)
    if root.is_file():
        return [root]
    found = sorted(f for f in root.rglob("*") if f.suffix in _SUFFIXES and f.is_file())
    if not found:
        raise InputError(
            got=f"no {' '.join(_SUFFIXES)} at {path!r}",
            want="a JSON or JSON-lines file, or a folder of them",
        )
    return found


def _read(file: pathlib.Path) -> list[tuple[str, dict[str, Any]]]:
    """(id, item) of each; the id is the file's name and the number of the item."""
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            got=f"{file}, which is not UTF-8 at byte {error.start}", want="UTF-8 text"
        ) from error
    try:
        if text.lstrip()[:1] == "[":
            items = list(enumerate(json.loads(text), start=1))
        else:
            lines = enumerate(text.split("\n"), start=1)
            items = [(n, _line(file, n, line)) for n, line in lines if line.strip()]
    except InputError:  # of a line
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(
            got=f"{file}, which is not JSON ({error})",
            want="a list of records, or one record a line",
        ) from error
    for number, item in items:
        if not isinstance(item, dict):
            raise InputError(
                got=f"{file.name}:{number}: {str(item)[:80]}", want="a record in {...}"
            )
    return [(f"{file.name}:{number}", item) for number, item in items]


def _line(file: pathlib.Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(
            got=f"{file}, line {number}, which is not JSON ({error})",
            want="one record a line",
            do="if it was cut off, copy the file again",
        ) from error

"""Instruction data of your own: JSON or JSON lines, in the forms that others write.

The forms are those of `llm/data/record_forms.py`: OpenAI, ShareGPT, Alpaca, Dolly,
HH-RLHF, UltraFeedback and others. Each becomes one of the records of
`llm/data/record_tokens.py`, or a labelled text. All of a file are of one kind. A record
that cannot be read, that has a part which cannot be honoured, or that says nothing to
learn, such as a conversation without an answer, is dropped and counted, with its
number; a field that is not read is named. A group is what is asked: the same question
never stands on both sides of a split.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llm import files
from llm.corpus import file_reader, json_records
from llm.data import record_forms
from llm.data.record_messages import readable as readable_message
from llm.document import NOTE, Document, Source
from llm.errors import InputError
from llm.json_text import parsed

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.jsonl"))}

_SUFFIXES = (".json", ".jsonl", ".ndjson")
_ABOUT = ("tools", "variables")  # of a conversation, beside what is said in it
_FEW = 20  # records of which each may have a class of its own


def make(
    *,
    path: str = "",
    system: str = "",
    chat: bool = False,
    labels: bool = False,
    max_documents: int = 0,
) -> Source:
    """Makes the source.

    Args:
      path: a file, or a folder of them.
      system: a system message for every conversation that has none.
      chat: whether prompts and completions that are texts become messages, too.
      labels: whether answers that are marked as good or bad keep that mark, for the
        objective kto; without it, bad ones are dropped and counted.
      max_documents: at most so many records, evenly spread; 0 takes all.

    Raises:
      InputError: no such file, one that is not JSON, or records of no known form.
    """

    def documents(skip: Callable[[str, str], None]) -> Iterator[Document]:
        found = [item for file in _files(path, skip) for item in _read(file)]
        count = min(max_documents or len(found), len(found))
        found = [found[i * len(found) // count] for i in range(count)]
        taken = list(_records(found, skip, system, chat, labels))
        _check_classes([record["label"] for _, record in taken if "text" in record])
        for id, record in taken:
            reason = _nothing(record)
            if reason:
                skip(reason, id)
            else:
                yield _document(id, record)

    return documents


def _records(
    found, skip, system: str, chat: bool, labels: bool
) -> Iterator[tuple[str, dict]]:
    """(id, record) of those that can be read; InputError if none of them can."""
    first_wrong, readable_ones = "", 0
    for id, item in found:
        if not isinstance(item, Mapping):
            skip("no JSON object", id)
            first_wrong = first_wrong or f"{id}: {str(item)[:80]}"
            continue
        try:
            record, unused = record_forms.read(
                item, system=system, chat=chat, labels=labels
            )
        except InputError as error:
            raise InputError(f"{id}: {error.got}", error.want, error.do) from error
        except record_forms.Disliked as error:
            skip(str(error), id)
            readable_ones += 1
            continue
        except ValueError as error:
            skip(str(error), id)
            first_wrong = first_wrong or f"{id}: {error}"
            continue
        for name in unused:
            skip(f"{NOTE}the field {name!r} is not read", id)
        readable_ones += 1
        yield id, record
    if first_wrong and not readable_ones:
        raise InputError(
            got=f"{first_wrong}; none of {len(found)} records can be read",
            want="records in one of the forms that configs/sft.py lists",
        )


def _check_classes(labels: Sequence[str]) -> None:
    """Raises InputError for labels of which most stand for one text alone."""
    different = sorted(set(labels))
    if len(labels) > _FEW and len(different) > len(labels) / 2:
        raise InputError(
            got=f"{len(different)} different labels of {len(labels)} texts, such as "
            f"{different[0]!r:.40} and {different[1]!r:.40}",
            want="classes, each of them of several texts",
        )


def _nothing(record: dict[str, Any]) -> str:
    """Why there is nothing to learn, or ''."""
    if "messages" in record:
        answers = [m for m in record["messages"] if m["role"] == "assistant"]
        learned = [m for m in answers if m.get("weight", 1)]
        if any(m["content"] or m.get("tool_calls") for m in learned):
            return ""
        return (
            "all answers have a weight of 0"
            if answers and not learned
            else ("no answer to learn")
        )
    if "rejected" in record:
        same = _plain(record["chosen"]) == _plain(record["rejected"])
        return "chosen and rejected are the same" if same else ""
    answer = next(record[n] for n in ("completion", "target", "text") if n in record)
    return "" if answer.strip() else "nothing to learn"


def _plain(answer: str | list[dict[str, Any]]) -> list[str]:
    """An answer as templates write it, without white space around it."""
    said = (
        [{"role": "assistant", "content": answer}]
        if isinstance(answer, str)
        else answer
    )
    return [
        readable_message(m | {"content": (m["content"] or "").strip()}) for m in said
    ]


def _document(id: str, record: dict[str, Any]) -> Document:
    asked = next(
        record[n] for n in ("prompt", "source", "messages", "text") if n in record
    )
    if "messages" in record:
        places = [i for i, m in enumerate(asked) if m["role"] == "assistant"]
        asked = asked[: places[0]]
    group = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    if "text" in record:
        meta, text = {"label": record["label"]}, record["text"]
    else:
        meta, text = {"record": record}, readable(record)
    size = len(text.encode("utf-8", errors="surrogatepass"))
    return Document(id, text, "records", group, "record", size, meta)


def readable(record: dict[str, Any]) -> str:
    """What a person reads of a record, and what makes two of them the same."""
    parts = []
    for value in (value for name, value in record.items() if name not in _ABOUT):
        if isinstance(value, bool):
            parts.append("[good]" if value else "[bad]")
        elif isinstance(value, str):
            parts.append(value)
        else:
            parts += map(readable_message, value)
    return "\n\n".join(parts)


def _files(path: str, skip: Callable[[str, str], None]) -> list[pathlib.Path]:
    if not path:
        raise InputError(
            got="source 'records' without a path",
            want="a JSON or JSON-lines file, or a folder of them",
            do="name one: --config=configs/sft.py:data=PATH",
        )
    root = pathlib.Path(path)
    if root.is_file():
        return [root]
    is_read = file_reader.ending(*_SUFFIXES)
    found = []
    for file in sorted(f for f in root.rglob("*") if f.is_file()):
        if is_read(file.name):
            found.append(file)
        elif not file.name.startswith("."):
            name = files.shown(file.relative_to(root).as_posix())
            skip(f"{NOTE}the file {name} is not read: no JSON", name)
    if not found:
        raise InputError(
            got=f"no {' '.join(_SUFFIXES)} at {path!r}{files.relative_to(path)}",
            want="a JSON or JSON-lines file, or a folder of them",
        )
    return found


def _read(file: pathlib.Path) -> list[tuple[str, Any]]:
    """(id, item) of each; the id is the file's name and the number of the item."""
    text = json_records.decoded(file, json_records.content(file))
    last = text.rstrip().count("\n") + 1

    def line(number: int, said: str) -> Any:
        if number == last:  # one that is broken off is a file that was cut
            where = f"{file}, line {number}"
            return parsed(where, said, "one record a line", json_records.AGAIN)
        try:
            return json.loads(said)
        except (ValueError, RecursionError) as error:
            return f"a line that is not JSON ({error}): {said}"

    name = files.shown(file.name)
    return [(f"{name}:{n}", x) for n, x in json_records.records(file, text, line)]

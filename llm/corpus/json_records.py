"""Files of records in JSON that others wrote, read whole: a list, or lines.

    [{"q": "a"}, {"q": "b"}]        a list of records
    {"data": [{"q": "a"}]}          an object with one
    {"q": {"0": "a", "1": "b"}}     an object of columns, as pandas writes a table
    {"q": "a"}                      a record a line

A file that does not fit in memory is read by `file_reader.lines`, as the source `jsonl`
does. There a line that is damaged is counted and left out; here it is an error, for
records are few and each was meant.
"""

import io
import json
import pathlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

from llm.corpus import file_reader
from llm.errors import InputError
from llm.json_text import parsed

WANT = "a list of records, or one record a line"
AGAIN = "if it was cut off, copy the file again"

# Where a file that is one object has its items.
_LISTS = ("data", "items", "examples", "questions", "instances", "records", "rows")


def content(file: pathlib.Path) -> bytes:
    """All bytes of a file, unpacked; InputError for one that is damaged."""
    try:
        return _whole(file, file_reader.opened(file))
    except OSError as error:
        raise InputError(
            got=f"{file} ({error.strerror})", want="a file that can be read"
        ) from error


def unpacked(where: str, content: bytes) -> bytes:
    """The same of a file within an archive."""
    raw = io.BufferedReader(io.BytesIO(content))
    return _whole(where, file_reader.unpacked(raw))


def _whole(where: Any, opened: AbstractContextManager[BinaryIO]) -> bytes:
    try:
        with opened as stream:
            return stream.read()
    except file_reader.Damaged as error:
        raise InputError(got=f"{where} ({error})", want="a whole file") from error


def decoded(where: Any, content: bytes) -> str:
    """The text of a file, which may begin with a byte-order mark; else InputError."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            got=f"{where}, which is not UTF-8 at byte {error.start}", want="UTF-8 text"
        ) from error


def records(
    where: Any, text: str, line: Callable[[int, str], Any]
) -> Iterator[tuple[int, Any]]:
    """(number, record): of lines the line's number, of lists from 1.

    Args:
      line: the record of a line, of its number and its text.

    Raises:
      InputError: a text that is not JSON, or an object of which it is not clear where
        its records are.
    """
    if text.lstrip().startswith("["):
        yield from enumerate(parsed(where, text, WANT, AGAIN), start=1)
    elif (inside := _list_in(where, text)) is not None:
        yield from enumerate(inside, start=1)
    else:
        for number, said in enumerate(text.split("\n"), start=1):
            if said.strip():
                yield number, line(number, said)


def _list_in(where: Any, text: str) -> list[dict[str, Any]] | None:
    """The items of a file that is one object with a list of them; None for lines."""
    one_line = "\n" not in text.strip()
    try:
        whole = json.loads(text) if text.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(whole, dict):
        return None
    if rows := _columns(whole):
        return rows
    lists = [whole[key] for key in _LISTS if isinstance(whole.get(key), list)]
    if len(lists) == 1 and all(isinstance(item, dict) for item in lists[0]):
        return lists[0]
    if one_line:
        return None  # an item
    raise InputError(
        got=f"{where}, one object with the fields {', '.join(map(str, whole))[:80]}",
        want=f"a list of items, or one of them under {', '.join(_LISTS)}",
    )


def _columns(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of an object of columns, {name: {number: value}}, as pandas writes a
    table by default; none of another object."""
    columns = list(whole.values())
    if not columns or not all(isinstance(c, dict) and c for c in columns):
        return []
    numbers = list(columns[0])
    if any(list(c) != numbers for c in columns) or not all(map(str.isdigit, numbers)):
        return []
    return [{name: whole[name][n] for name in whole} for n in numbers]

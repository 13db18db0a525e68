"""Items of an evaluation, read from files of one's own: JSON, JSON lines, CSV, TSV.

A path names a file, a folder of them, or a pattern; a zip archive is a folder, too:

    items.jsonl      folder/      mmlu.zip/**/*_test.csv

An item is a record {name: value} with its `id`, which is the same in every run: the
file's name and the number of the item in it. `_file` is the name of its file without
`_test`, `_dev` and the like, which in many benchmarks is the subject.

Tasks call fields by names of their own, and a map says what they are called here:

    fields="question=query,choices=a+b+c,answer=label"

`a+b+c` makes a list of several fields. What is not mapped has its own name.
"""

import csv
import fnmatch
import hashlib
import io
import itertools
import json
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from llm.errors import InputError

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_SPLIT = re.compile(r"[_-](test|dev|val|validation|train)$")
_FIELD = re.compile(r"\{(\w+)\}")


class Item(NamedTuple):
    """A record and what names it."""

    id: str
    fields: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        """A field; InputError, with its name and those that there are."""
        if name not in self.fields:
            known = ", ".join(k for k in self.fields if k != "_file") or "none"
            raise InputError(
                got=f"{self.id} without the field {name!r}",
                want=f"it, among {known}",
                do=f"map it: fields='{name}=NAME'",
            )
        return self.fields[name]


class Items(NamedTuple):
    """Items in order, and the hash of the files that they are from."""

    items: list[Item]
    sha256: str


def read(path: str, *, fields: str = "", columns: str = "") -> Items:
    """Reads items.

    Args:
      fields: what fields of the task are called in the file.
      columns: names of a table's columns, where its first row does not say them.

    Raises:
      InputError: no such file, nothing in it, or a line that is no record.
    """
    wanted = _map(fields)
    names = [name.strip() for name in columns.split(",")] if columns else []
    digest, found = hashlib.sha256(), []
    for name, content in _files(path):
        digest.update(content)
        for number, record in _records(name, content, names):
            id = f"{name}:{number}"
            if not isinstance(record, dict):
                raise InputError(got=f"{id}: {str(record)[:80]}", want="a record")
            record = record | {"_file": _SPLIT.sub("", pathlib.PurePath(name).stem)}
            found.append(Item(id, _mapped(record, wanted, id)))
    if not found:
        raise InputError(got=f"no items in {path}", want="a file that is not empty")
    return Items(found, digest.hexdigest())


def spread(items: Sequence[Item], limit: int) -> list[Item]:
    """At most so many items, evenly spread; 0 is all."""
    count = min(limit or len(items), len(items))
    return [items[i * len(items) // count] for i in range(count)]


def filled(template: str, item: Item, more: Mapping[str, str] | None = None) -> str:
    """A template with `{field}` filled in; any other brace is itself."""
    known = more or {}

    def value(match):
        name = match[1]
        return str(known[name] if name in known else item[name])

    return _FIELD.sub(value, template)


def text(item: Item, name: str) -> str:
    """A field that must be a text, and not an empty one."""
    value = item[name]
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            got=f"{item.id} with {name} {value!r:.60}", want="a text that is not empty"
        )
    return value


def _map(fields: str) -> dict[str, str]:
    wanted = {}
    for part in filter(None, (p.strip() for p in fields.split(","))):
        mine, equals, theirs = part.partition("=")
        if not (equals and mine and theirs):
            raise InputError(
                got=f"fields {fields!r}", want="MINE=THEIRS,… such as question=query"
            )
        wanted[mine.strip()] = theirs.strip()
    return wanted


def _mapped(record, wanted, id) -> dict[str, Any]:
    made = dict(record)
    for mine, theirs in wanted.items():
        parts = theirs.split("+")
        missing = [part for part in parts if part not in record]
        if missing:
            known = ", ".join(k for k in record if k != "_file")
            raise InputError(
                got=f"{id} without the field {missing[0]!r}", want=f"one of {known}"
            )
        values = [record[part] for part in parts]
        made[mine] = values if len(parts) > 1 else values[0]
    return made


def _files(path: str) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each file that a path names."""
    if not path:
        raise InputError(
            got="no path of items", want="a JSON, JSON-lines, CSV or TSV file"
        )
    parts = pathlib.PurePath(path).parts
    for depth in range(1, len(parts) + 1):
        archive = pathlib.Path(*parts[:depth])
        if archive.suffix == ".zip" and archive.is_file():
            yield from _in_zip(archive, "/".join(parts[depth:]))
            return
    root = pathlib.Path(path)
    if root.is_file():
        found = [root]
    elif root.is_dir():
        found = sorted(f for f in root.rglob("*") if f.suffix in _SUFFIXES)
    else:
        plain = list(itertools.takewhile(lambda part: "*" not in part, parts))
        found = []
        if 0 < len(plain) < len(parts):
            pattern = "/".join(parts[len(plain) :])
            found = sorted(pathlib.Path(*plain).glob(pattern))
    if not found:
        raise InputError(
            got=f"nothing at {path}",
            want="a file, a folder, or a pattern of " + " ".join(_SUFFIXES),
        )
    for file in found:
        try:
            yield file.name, file.read_bytes()
        except OSError as error:
            raise InputError(
                got=f"{file} ({error.strerror})", want="a file that can be read"
            ) from error


def _in_zip(archive: pathlib.Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    deep = pattern.replace("**/", "*")  # whose stars know no folders
    try:
        with zipfile.ZipFile(archive) as opened:
            names = sorted(
                n
                for n in opened.namelist()
                if n.endswith(_SUFFIXES)
                and (not pattern or fnmatch.fnmatch("/" + n, "/" + deep))
            )
            if not names:
                raise InputError(
                    got=f"nothing like {pattern or '*'} in {archive}",
                    want=f"one of {', '.join(opened.namelist()[:5])}, …",
                )
            for name in names:
                yield pathlib.PurePath(name).name, opened.read(name)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(
            got=f"{archive} ({error})", want="a whole zip archive"
        ) from error


def _records(name: str, content: bytes, columns) -> Iterator[tuple[int, Any]]:
    """(number, record): of lines the line's number, of tables and lists from 1."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            got=f"{name}, which is not UTF-8 at byte {error.start}", want="UTF-8 text"
        ) from error
    if name.endswith((".csv", ".tsv")):
        yield from _rows(name, text, columns)
    elif text.lstrip().startswith("["):
        yield from enumerate(_json(name, text), start=1)
    else:
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, _json(f"{name}, line {number}", line)


def _rows(name, text, columns) -> Iterator[tuple[int, dict[str, str]]]:
    delimiter = "\t" if name.endswith(".tsv") else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        head = columns or next(rows, [])
        for number, row in enumerate(filter(None, rows), start=1):
            if len(row) != len(head):
                raise InputError(
                    got=f"{name}, row {number}, with {len(row)} columns",
                    want=f"{len(head)}: {', '.join(head)}",
                    do="" if columns else "if the first row is no head, say columns=",
                )
            yield number, dict(zip(head, row, strict=True))
    except csv.Error as error:
        raise InputError(
            got=f"{name}, which is no table ({error})", want="whole rows"
        ) from error


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            got=f"{where}, which is not JSON ({error})",
            want="a list of records, or one record a line",
            do="if it was cut off, copy the file again",
        ) from error

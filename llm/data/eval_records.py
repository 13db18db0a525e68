"""Items of an evaluation, read from files of one's own: JSON, JSON lines, CSV, TSV.

Each may be compressed, also within an archive. A JSON file may also be one object with
a list of items in it. Rows of a TSV file are lines, whose quotes are text. What is
wrong with a table is an error: the source `csv` reads on behind what is damaged, but a
figure without these rows would be of another examination.

A path names a file, a folder of them, or a pattern; a zip archive is a folder, too:

    items.jsonl      folder/      mmlu.zip/**/*_test.csv

An item is a record {name: value} with its `id`, which is the same in every run: the
file's name and the number of the item in it; where two files have one name, their place
in the folder, too. `_file` is the name of its file without `_test`, `_dev` and the
like, which in many benchmarks is the subject.

Tasks call fields by names of their own, and a map says what they are called here:

    fields="question=query,choices=a+b+c,answer=label"

`a+b+c` makes a list of several fields. What is not mapped has its own name.
"""

import collections
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

from llm import files
from llm.corpus import file_reader, json_records
from llm.errors import InputError
from llm.json_text import parsed

_PLAIN = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_is_read = file_reader.ending(*_PLAIN)
_SPLIT = re.compile(r"[_-](test|dev|val|validation|train)$")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')  # a cell as CSV quotes it
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
                do=f"map it: fields='{name}=NAME'; for a table without a head, say "
                "columns=NAME,NAME,…",
            )
        return self.fields[name]

    @property
    def digest(self) -> str:
        """A hash of what it says, whatever its file is called."""
        said = {k: v for k, v in self.fields.items() if k != "_file"}
        text = json.dumps(said, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


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
    paths = list(_files(path))
    names_of_files = collections.Counter(pathlib.PurePath(f).name for f, _ in paths)
    for place, content in paths:
        name = pathlib.PurePath(place).name
        name = name if names_of_files[name] == 1 else place
        digest.update(content)
        for number, record in _records(name, content, names):
            id = f"{name}:{number}"
            if not isinstance(record, dict):
                raise InputError(got=f"{id}: {str(record)[:80]}", want="a record")
            record = record | {"_file": _SPLIT.sub("", _stem(name))}
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


def _stem(name: str) -> str:
    return pathlib.PurePath(name.removesuffix(".gz")).stem


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
        root, found = root.parent, [root]
    elif root.is_dir():
        every = sorted(f for f in root.rglob("*") if f.is_file())
        found = [f for f in every if _is_read(f.name)]
        _say_others(path, [f.relative_to(root).as_posix() for f in every])
    else:
        plain = list(itertools.takewhile(lambda part: "*" not in part, parts))
        root, found = pathlib.Path(*plain), []
        if 0 < len(plain) < len(parts):
            pattern = "/".join(parts[len(plain) :])
            found = sorted(root.glob(pattern))
    found = [file for file in found if not _hidden(file.relative_to(root).as_posix())]
    if not found:
        raise InputError(
            got=f"nothing at {path}{files.relative_to(path)}",
            want="a file, a folder, or a pattern of " + " ".join(_PLAIN),
        )
    for file in found:
        yield file.relative_to(root).as_posix(), json_records.content(file)


def _in_zip(archive: pathlib.Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    deep = pattern.replace("**/", "*")  # whose stars know no folders
    try:
        with zipfile.ZipFile(archive) as opened:
            chosen = sorted(
                n
                for n in opened.namelist()
                if not pattern or fnmatch.fnmatch("/" + n, "/" + deep)
            )
            names = [n for n in chosen if _is_read(n) and not _hidden(n)]
            _say_others(str(archive), [n for n in chosen if not n.endswith("/")])
            if not names:
                raise InputError(
                    got=f"nothing like {pattern or '*'} in {archive}",
                    want=f"one of {', '.join(opened.namelist()[:5])}, …",
                )
            for name in names:
                yield name, opened.read(name)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(
            got=f"{archive} ({error})", want="a whole zip archive"
        ) from error


def _say_others(path: str, names: Sequence[str]) -> None:
    """Names the files of a folder or an archive that are not read."""
    others = [n for n in names if not _is_read(n) and not _hidden(n)]
    if others:
        more = ", …" if len(others) > 5 else ""
        print(f"{path}: not read: {', '.join(others[:5])}{more}", flush=True)


def _hidden(name: str) -> bool:
    """What a Mac puts beside files, and what is hidden."""
    return any(p == "__MACOSX" or p.startswith(".") for p in name.split("/"))


def _records(name: str, content: bytes, columns) -> Iterator[tuple[int, Any]]:
    """(number, record): of lines the line's number, of tables and lists from 1."""
    content = json_records.unpacked(name, content)  # of an archive
    name = file_reader.plain_name(name)
    text = json_records.decoded(name, content)
    if name.endswith((".csv", ".tsv")):
        return _rows(name, text, columns)

    def line(number: int, said: str) -> Any:
        where = f"{name}, line {number}"
        return parsed(where, said, json_records.WANT, json_records.AGAIN)

    return json_records.records(name, text, line)


def _rows(name, text, columns) -> Iterator[tuple[int, dict[str, str]]]:
    tabs = name.endswith(".tsv")
    rows = _lines_of_tabs(text) if tabs else None
    if rows is None:
        delimiter, lines = "\t" if tabs else ",", io.StringIO(text, newline="")
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        head = columns or next(rows, [])
        _check_head(name, head)
        for number, row in enumerate(filter(None, rows), start=1):
            if number == 1 and columns and _plain(row) == _plain(columns):
                continue  # the head, which says what we were told
            if tabs and any("\t" in cell for cell in row):
                raise InputError(
                    got=f"{name}, row {number}, with a tab inside of quotes",
                    want="lines of as many cells, or quotes around cells with line "
                    "breaks alone",
                )
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


def _lines_of_tabs(text: str) -> Iterator[list[str]] | None:
    """The rows of a TSV file whose quotes are text; None if it is read as CSV: where
    its lines are not all of as many cells, as some have line breaks in quotes, or where
    quotes within quotes are doubled."""
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line]
    rows = [line.split("\t") for line in lines]
    quoted = [cell for row in rows for cell in row if cell.startswith('"')]
    doubled = any('""' in cell[1:-1] for cell in quoted)
    if doubled and all(_QUOTED.fullmatch(cell) for cell in quoted):
        return None
    return iter(rows) if len({len(row) for row in rows}) <= 1 else None


def _check_head(name: str, head: Sequence[str]) -> None:
    twice = sorted({column for column in head if head.count(column) > 1})
    if twice:
        raise InputError(
            got=f"{name} with two columns {twice[0]!r}", want="a name for each column"
        )


def _plain(row: Sequence[str]) -> list[str]:
    return [cell.strip().lower() for cell in row]

"""Records of named fields as documents, and the sources of them: tables, JSON lines.

Knobs say which field holds what; a dot leads into a record, as `meta.url`. Only the
text must be there.

    {"text": "Hello.", "id": "a", "meta": {"url": "http://a.org/"}}

A file of llm/sources/ says how its records are read. It has the knobs of `Knobs`, and
those that it adds to them:

    make = of_files("parquet", "Parquet", wanted, records)
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from llm.corpus import file_reader
from llm.corpus.file_reader import Skip
from llm.corpus.file_source import Files, each, once
from llm.document import Document, Source
from llm.errors import InputError
from llm.knobs import Count, maker
from llm.text import languages

_SURROGATES = re.compile(r"[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knobs:
    """The knobs of every source of records; a field of '' is not read."""

    path: str = ""  # a file, or a folder of them
    text: str = "text"  # the field with the text; a record may lack the next ones
    id: str = "id"
    group: str = ""  # what a split may not cut, such as a site
    url: str = "url"
    licence: str = "license"
    language: str = "language"
    timestamp: str = "timestamp"
    kind: str = "prose"  # what the texts are, `prose` or `code`
    max_documents: Count = 0  # the first so many; 0 takes all

    @property
    def fields(self) -> set[str]:
        """The names of the fields that are read."""
        names = {self.text, self.id, self.group, self.url, self.licence}
        return (names | {self.language, self.timestamp}) - {""}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetKnobs(Knobs):
    """Those of a data set that a library loads; `path` is its name or its folder."""

    split: str = "train"  # as the library calls it

    def refused(self, error: Exception, want: str) -> InputError:
        """What to raise where the library cannot load it."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        got = f"the data set {self.path!r}, split {self.split!r} ({lines[0][:200]})"
        return InputError(got=got, want=want)


# (knobs, file, its name, skip) -> (number, record) of each that can be read.
Records = Callable[[Any, pathlib.Path, str, Skip], Iterator[tuple[int, Any]]]


def of_files(
    source: str,
    what: str,
    wanted: Callable[[str], bool],
    records: Records,
    knobs: type[Knobs] = Knobs,
) -> Callable[..., Source]:
    """The `make(**knobs)` of a source of files of records.

    Args:
      source: its name.
      what, wanted: of the files, as `file_reader.files` takes them.
    """

    def build(of: Knobs) -> Source:
        def documents(file, name, skip):
            part = file_reader.part(of.path, name)
            for number, record in records(of, file, name, skip):
                yield document(record, f"{name}:{number}", of, source, skip, part)

        files = functools.partial(file_reader.files, of.path, what, wanted)
        return Files(files, each(documents), of.max_documents)

    return maker(build, knobs)


def of_set(
    source: str, records: Callable[[Any], Iterable[Any]], knobs: type[SetKnobs]
) -> Callable[..., Source]:
    """The `make(**knobs)` of a source of data sets.

    Args:
      source: its name.
      records: (knobs) -> the records of a data set, always in the same order.
    """

    def build(of: SetKnobs) -> Source:
        name = of.path.rstrip("/").rpartition("/")[2] or of.path

        def read(skip):
            for number, record in enumerate(records(of)):
                yield document(record, f"{name}:{number}", of, source, skip)

        return lambda skip: once(read(skip), of.max_documents, skip)

    return maker(build, knobs)


def document(
    record: Any, place: str, knobs: Knobs, source: str, skip: Skip, file: str = ""
) -> Document | None:
    """The document of one record; None, and skipped, if it has no text.

    Args:
      place: where it stands, as `a.jsonl:3`: its id if it has none of its own.
      file: its file, if there are several: ids count rows within one file, so the name
        of the file becomes a part of them.
    """
    if not isinstance(record, dict):
        skip("not a record", place)
        return None
    text = value(record, knobs.text)
    if not isinstance(text, str):
        skip(f"no text in the field {knobs.text!r}", place)
        return None
    if not text.strip():
        skip("empty", place)
        return None
    text = encodable(text)
    own = _name(record, knobs.id)
    id = (f"{file}#{own}" if file else own) if own else place
    meta = {}
    for name in ("url", "licence", "language", "timestamp"):
        found = _name(record, getattr(knobs, name))
        if found:
            meta[name] = found
    if "language" in meta and knobs.kind == "prose":  # that of code is no human one
        meta["language"] = languages.code(meta["language"])
    if id != place:
        meta["place"] = place
    group = _name(record, knobs.group) or id
    return Document(id, text, source, group, knobs.kind, len(text.encode()), meta)


def value(record: dict, name: str) -> Any:
    """The field of a record, by a name that may lead into records of it; or None."""
    if not name or name in record:
        return record.get(name) if name else None
    first, _, rest = name.partition(".")
    inner = record.get(first)
    return value(inner, rest) if rest and isinstance(inner, dict) else None


def encodable(text: str) -> str:
    """The text with U+FFFD for half characters (surrogates), which UTF-8 lacks."""
    return _SURROGATES.sub("\ufffd", text)


def _name(record: dict, field: str) -> str:
    found = value(record, field)
    return "" if found is None else encodable(str(found)).strip()

"""Texts in tables: CSV with a first row of names, or TSV; plain or compressed.

    id,text,url
    a,"Hello, you.",http://a.org/

A row is a document, read alone. The knobs say which column holds what. Quotes and line
breaks in quotes are as RFC 4180 has them; bytes that are not UTF-8 end as U+FFFD and
are counted, since a table rarely says its encoding. A quote that is not closed makes
one cell of all up to the next, or to the end of the file: how many lines were lost so
is said, and reading goes on behind them. Tables whose quotes are just characters, as
many TSVs have it, are read with `quote=""`. A row with more cells than the first row
has names is left out and counted: a text with a comma and no quotes would lose what
comes behind it. One with fewer is kept and counted. Ids of a folder begin with the
name of the file, since they repeat from file to file.

    --config=configs/quickstart.py:text=csv:table.csv
"""

import csv
import itertools
import pathlib
from collections.abc import Iterable, Iterator

from llm.corpus import file_reader, record_fields
from llm.corpus.file_source import Files
from llm.document import Document, Source
from llm.errors import InputError

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.csv"))}

_WANTED = file_reader.ending(".csv", ".tsv")


def make(
    *,
    path: str = "",
    text: str = "text",
    id: str = "id",
    group: str = "",
    url: str = "url",
    licence: str = "license",
    language: str = "language",
    timestamp: str = "timestamp",
    kind: str = "prose",
    delimiter: str = "",
    quote: str = '"',
    max_line_bytes: int = 16 * 2**20,
    max_documents: int = 0,
) -> Source:
    """Makes the source.

    Args:
      path: a file, or a folder of them.
      text: the column with the text; so the next ones, which a table may lack.
      group: the column with what a split may not cut, such as a site; '' for none.
      kind: what the texts are, `prose` or `code`.
      delimiter: what stands between cells; '' is a tab for .tsv, else a comma.
      quote: what stands around cells with such characters; '' for none.
      max_line_bytes: a line or a cell that is longer is left out.
      max_documents: the first so many; 0 takes all.

    Raises:
      InputError: no such file, a folder without any, or more than one character.
    """
    if len(delimiter) > 1 or len(quote) > 1 or {delimiter, quote} & {"\r", "\n"}:
        raise InputError(
            got=f"delimiter {delimiter!r}, quote {quote!r}",
            want="a character, or '' for the default of the one, none of the other",
        )
    fields = record_fields.Fields(text, id, group, url, licence, language, timestamp)

    def files(skip: file_reader.Skip) -> Iterator[file_reader.File]:
        return file_reader.files(path, "CSV or TSV", _WANTED, skip)

    def read(
        files: Iterable[file_reader.File], skip: file_reader.Skip
    ) -> Iterator[Document | None]:
        csv.field_size_limit(max_line_bytes)
        for file, name, *_ in files:
            part = file_reader.part(path, name)
            between = delimiter or ("\t" if ".tsv" in name.lower() else ",")
            lines = _decoded(file, name, max_line_bytes, skip)
            table = csv.DictReader(
                lines,
                delimiter=between,
                quotechar=quote or None,
                quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
                strict=True,
            )
            if _twice(table, name, fields, skip):
                continue
            for number, record in _rows(table, name, skip):
                yield record_fields.document(
                    record,
                    f"{name}:{number}",
                    fields,
                    "csv",
                    kind,
                    skip,
                    part,
                )

    return Files(files, read, max_documents)


def _twice(
    table, name: str, fields: record_fields.Fields, skip: file_reader.Skip
) -> bool:
    """Whether a column that is read stands twice in the first row: which one is it?"""
    try:
        names = list(table.fieldnames or ())
    except csv.Error as error:
        skip(f"damaged: {error}", f"{name}:1")
        return True
    twice = sorted({field for field in fields if field and names.count(field) > 1})
    if twice:
        skip(f"two columns {twice[0]!r} in the first row", name)
    return bool(twice)


def _rows(table, name: str, skip: file_reader.Skip):
    """(number, row) of each row that can be read."""
    for number in itertools.count(2):
        first = table.reader.line_num + 1
        try:
            row = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            lost = f"{table.reader.line_num - first + 1} lines from {first} on"
            skip(f"damaged: {error}", f"{name}:{number}, {lost}")
            continue
        if any(row.pop(None, ())):
            skip("row with more cells than the first row has names", f"{name}:{number}")
            continue
        if None in row.values():
            skip(
                "row with fewer cells than the first row has names, kept",
                f"{name}:{number}",
            )
        yield number, row


def _decoded(file, name: str, longest: int, skip: file_reader.Skip) -> Iterator[str]:
    for number, line in file_reader.lines(file, name, longest, skip):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8") + "\n"
        except UnicodeDecodeError:
            skip("not UTF-8: letters are lost", f"{name}, line {number}")
            yield line.decode("utf-8", "replace") + "\n"

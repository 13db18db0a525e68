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
name of the file, since they repeat from file to file. (Tables of an evaluation, of
which no row may be lost, are read by `llm/data/eval_records.py`.)

    --config=configs/quickstart.py:text=csv:table.csv
"""

import csv
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator

from llm.corpus import file_reader, record_fields
from llm.errors import InputError
from llm.knobs import Positive

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.csv"))}

_WANTED = file_reader.ending(".csv", ".tsv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knobs(record_fields.Knobs):
    """Those of a table."""

    delimiter: str = ""  # what stands between cells; '' is a tab for .tsv, else a comma
    quote: str = '"'  # what stands around cells with such characters; '' for none
    max_line_bytes: Positive = 16 * 2**20  # a line or a cell that is longer is left out

    def __post_init__(self):
        marks = (self.delimiter, self.quote)
        if any(len(mark) > 1 or mark in ("\r", "\n") for mark in marks):
            raise InputError(
                got=f"delimiter {self.delimiter!r}, quote {self.quote!r}",
                want="a character, or '' for the default of the one, none of the other",
            )


def _records(knobs: Knobs, file: pathlib.Path, name: str, skip: file_reader.Skip):
    csv.field_size_limit(knobs.max_line_bytes)
    table = csv.DictReader(
        _decoded(file, name, knobs.max_line_bytes, skip),
        delimiter=knobs.delimiter or ("\t" if ".tsv" in name.lower() else ","),
        quotechar=knobs.quote or None,
        quoting=csv.QUOTE_MINIMAL if knobs.quote else csv.QUOTE_NONE,
        strict=True,
    )
    if not _twice(table, name, knobs.fields, skip):
        yield from _rows(table, name, skip)


def _twice(table, name: str, fields: set[str], skip: file_reader.Skip) -> bool:
    """Whether a column that is read stands twice in the first row: which one is it?"""
    try:
        names = list(table.fieldnames or ())
    except csv.Error as error:
        skip(f"damaged: {error}", f"{name}:1")
        return True
    twice = sorted(field for field in fields if names.count(field) > 1)
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


make = record_fields.of_files("csv", "CSV or TSV", _WANTED, _records, Knobs)

"""Texts in tables: CSV with a first row of names, or TSV; plain or compressed.

    id,text,url
    a,"Hello, you.",http://a.org/

A row is a document, read alone. The knobs say which column holds what. Quotes and line
breaks in quotes are as RFC 4180 has them; bytes that are not UTF-8 end as U+FFFD and
are counted, since a table rarely says its encoding. A quote that is never closed would
make the rest of the file one cell: past `max_line_bytes` the file is left, and said.

    --config=configs/quickstart.py:text=csv:table.csv
"""

import csv
import pathlib
from collections.abc import Iterable, Iterator

from llm import columns, reading
from llm.document import Document, Source
from llm.source_files import Files

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.csv"))}

_WANTED = reading.ending(".csv", ".tsv")


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
      max_line_bytes: a file is left at a line or a cell that is longer.
      max_documents: the first so many; 0 takes all.

    Raises:
      InputError: no such file, or a folder without any.
    """
    fields = columns.Fields(text, id, group, url, licence, language, timestamp)

    def files(skip: reading.Skip) -> Iterator[reading.File]:
        return reading.files(path, "CSV or TSV", _WANTED, skip)

    def read(
        files: Iterable[reading.File], skip: reading.Skip
    ) -> Iterator[Document | None]:
        csv.field_size_limit(max_line_bytes)
        for file, name, *_ in files:
            between = delimiter or ("\t" if ".tsv" in name.lower() else ",")
            lines = _decoded(file, name, max_line_bytes, skip)
            table = csv.DictReader(lines, delimiter=between)
            number = 1
            try:
                for number, record in enumerate(table, 2):
                    yield columns.document(
                        record, f"{name}:{number}", fields, "csv", kind, skip
                    )
            except csv.Error as error:
                skip(f"damaged: {error}", f"{name}:{number + 1}")

    return Files(files, read, max_documents)


def _decoded(file, name: str, longest: int, skip: reading.Skip) -> Iterator[str]:
    for number, line in reading.lines(file, name, longest, skip):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8") + "\n"
        except UnicodeDecodeError:
            skip("not UTF-8, repaired", f"{name}, line {number}")
            yield line.decode("utf-8", "replace") + "\n"

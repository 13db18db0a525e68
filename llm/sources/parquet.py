"""Texts in Parquet, the form in which data sets are mostly handed on; needs pyarrow.

A row is a document. Only the columns that are named are read, some hundred rows at a
time, so a file may be of any size as long as one of its row groups fits in memory. The
knobs say which column holds what, and `meta.url` leads into a structure. A file that is
damaged is left out, or read as far as it goes, and counted. Ids of a folder begin with
the name of the file, since they repeat from file to file.

    --config=configs/quickstart.py:text=parquet:corpus/
"""

import pathlib
from collections.abc import Iterable, Iterator

from llm.corpus import file_reader, record_fields
from llm.corpus.file_source import Files
from llm.document import Document, Source

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.parquet"))}
NEEDS = ("pyarrow",)

_ROWS = 256


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
    max_documents: int = 0,
) -> Source:
    """Makes the source.

    Args:
      path: a file, or a folder of them.
      text: the column with the text; so the next ones, which a file may lack.
      group: the column with what a split may not cut, such as a site; '' for none.
      kind: what the texts are, `prose` or `code`.
      max_documents: the first so many; 0 takes all.

    Raises:
      InputError: no such file, a folder without any, or no package pyarrow.
    """
    fields = record_fields.Fields(text, id, group, url, licence, language, timestamp)

    def files(skip: file_reader.Skip) -> Iterator[file_reader.File]:
        return file_reader.files(path, "Parquet", _wanted, skip)

    def read(
        files: Iterable[file_reader.File], skip: file_reader.Skip
    ) -> Iterator[Document | None]:
        pyarrow = file_reader.package("pyarrow", "pyarrow", _pyarrow)
        wanted = {name.partition(".")[0] for name in fields if name} | {*fields}
        for file, name, *_ in files:
            part = file_reader.part(path, name)
            number = 0
            try:
                with pyarrow.parquet.ParquetFile(file) as table:
                    names = [n for n in table.schema_arrow.names if n in wanted]
                    for batch in table.iter_batches(_ROWS, columns=names):
                        for record in batch.to_pylist():
                            number += 1
                            yield record_fields.document(
                                record,
                                f"{name}:{number}",
                                fields,
                                "parquet",
                                kind,
                                skip,
                                part,
                            )
            except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
                skip(f"damaged: {type(error).__name__}", f"{name}:{number + 1}")

    return Files(files, read, max_documents)


def _wanted(name: str) -> bool:
    return name.lower().endswith((".parquet", ".pq"))


def _pyarrow():
    import pyarrow
    import pyarrow.parquet

    return pyarrow

"""Texts in Parquet, the form in which data sets are mostly handed on; needs pyarrow.

A row is a document. Only the columns that are named are read, some hundred rows at a
time, so a file may be of any size as long as one of its row groups fits in memory. The
knobs say which column holds what, and `meta.url` leads into a structure. A file that is
damaged is left out, or read as far as it goes, and counted. Ids of a folder begin with
the name of the file, since they repeat from file to file.

    --config=configs/quickstart.py:text=parquet:corpus/
"""

import pathlib

from llm.corpus import file_reader, record_fields
from llm.corpus.record_fields import Knobs

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.parquet"))}
NEEDS = ("pyarrow",)

_ROWS = 256


def _wanted(name: str) -> bool:
    return name.lower().endswith((".parquet", ".pq"))


def _records(knobs: Knobs, file: pathlib.Path, name: str, skip: file_reader.Skip):
    pyarrow = file_reader.package("pyarrow", "pyarrow", _pyarrow)
    wanted = knobs.fields | {field.partition(".")[0] for field in knobs.fields}
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            names = [n for n in table.schema_arrow.names if n in wanted]
            for batch in table.iter_batches(_ROWS, columns=names):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        skip(f"damaged: {type(error).__name__}", f"{name}:{number + 1}")


def _pyarrow():
    import pyarrow
    import pyarrow.parquet

    return pyarrow


make = record_fields.of_files("parquet", "Parquet", _wanted, _records)

"""Texts in JSON lines, plain or compressed: the form of most corpora.

    {"text": "Hello.", "id": "a", "url": "http://a.org/", "language": "en"}

A line is a document; it is read alone, so a file may be of any size. The knobs say
which field holds what, and `meta.url` leads into a record of the line. Lines that are
too long, not UTF-8, not JSON or without a text are left out and counted, and a file
that is cut off is read to there. A document without an id is named by file and line,
one of a folder by file and id, since ids repeat from file to file; one without a group
is its own. (Conversations and pairs are of the source `records`.)

    --config=configs/quickstart.py:text=jsonl:corpus/
"""

import dataclasses
import json
import pathlib

from llm.corpus import file_reader, record_fields
from llm.knobs import Positive

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.jsonl"))}

_WANTED = file_reader.ending(".jsonl", ".ndjson", ".json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knobs(record_fields.Knobs):
    """Those of JSON lines."""

    max_line_bytes: Positive = 16 * 2**20  # a longer line is left out


def _records(knobs: Knobs, file: pathlib.Path, name: str, skip: file_reader.Skip):
    for number, line in file_reader.lines(file, name, knobs.max_line_bytes, skip):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            skip("not UTF-8", f"{name}:{number}")
        except (ValueError, RecursionError):
            skip("not JSON", f"{name}:{number}")
        else:
            yield number, record


make = record_fields.of_files("jsonl", "JSON lines", _WANTED, _records, Knobs)

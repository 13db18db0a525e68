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

import json
import pathlib
from collections.abc import Iterable, Iterator

from llm.corpus import file_reader, record_fields
from llm.corpus.file_source import Files
from llm.document import Document, Source

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.jsonl"))}

_WANTED = file_reader.ending(".jsonl", ".ndjson", ".json")


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
    max_line_bytes: int = 16 * 2**20,
    max_documents: int = 0,
) -> Source:
    """Makes the source.

    Args:
      path: a file, or a folder of them.
      text: the field with the text; so the next ones, which a line may lack.
      group: the field with what a split may not cut, such as a site; '' for none.
      kind: what the texts are, `prose` or `code`.
      max_line_bytes: a longer line is left out.
      max_documents: the first so many; 0 takes all.

    Raises:
      InputError: no such file, or a folder without any.
    """
    fields = record_fields.Fields(text, id, group, url, licence, language, timestamp)

    def files(skip: file_reader.Skip) -> Iterator[file_reader.File]:
        return file_reader.files(path, "JSON lines", _WANTED, skip)

    def read(
        files: Iterable[file_reader.File], skip: file_reader.Skip
    ) -> Iterator[Document | None]:
        for file, name, *_ in files:
            part = file_reader.part(path, name)
            for number, line in file_reader.lines(file, name, max_line_bytes, skip):
                place = f"{name}:{number}"
                if not line.strip():
                    continue
                try:
                    record = json.loads(line.decode("utf-8-sig"))
                except UnicodeDecodeError:
                    skip("not UTF-8", place)
                    continue
                except (ValueError, RecursionError):
                    skip("not JSON", place)
                    continue
                yield record_fields.document(
                    record, place, fields, "jsonl", kind, skip, part
                )

    return Files(files, read, max_documents)

"""Documents between two steps of the pipeline: two files a shard, a line a document.

    00003-000.about   JSON objects: all but the text, with its `bytes` and its `head`
    00003-000.text    JSON strings
    00003-000.json    what the step counted; written last: a shard that has it is whole

What only decides, counts or splits reads the first and never a text. A later step that
keeps the text names the lines that are left, in `00003-000.rows.npy` of its own folder.
"""

import io
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from llm import files
from llm.document import Document

_HEAD = 160  # characters of a text that its examples show
_FIELDS = ("id", "source", "group", "kind", "raw_bytes", "meta")


class Place(NamedTuple):
    """Where the documents are after a step.

    Attributes:
      texts: the folder of their texts.
      rows: the folder of the lines that are left; None is all of them.
    """

    texts: pathlib.Path
    rows: pathlib.Path | None = None

    def left(self, name: str) -> np.ndarray | None:
        """The lines of a shard that are left, uint32; None is all of them."""
        return None if self.rows is None else load(self.rows / f"{name}.rows.npy")

    def abouts(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """(line, all but its text) of each document."""
        left = self.left(name)
        lines = _lines(self.texts / f"{name}.about")
        return ((n, json.loads(line)) for n, line in _some(lines, left))

    def documents(self, name: str) -> Iterator[tuple[int, Document]]:
        """(line, the document) of each."""
        texts = _lines(self.texts / f"{name}.text")
        for n, about, text in _paired(self.abouts(name), texts):
            yield n, document(json.loads(text), about)


def about(document: Document) -> dict[str, Any]:
    """What is known of a document beside its text."""
    return {
        **{field: getattr(document, field) for field in _FIELDS},
        "bytes": len(document.text.encode("utf-8", "surrogatepass")),
        "head": " ".join(document.text[: 2 * _HEAD].split())[:_HEAD],
    }


def document(text: str, about: dict[str, Any]) -> Document:
    """The document again."""
    return Document(text=text, **{field: about[field] for field in _FIELDS})


def write(folder: pathlib.Path, name: str, documents: Iterable[Document]) -> int:
    """Writes the texts of a shard, and returns how many there are."""
    count, partial = 0, {part: folder / f".{name}.{part}" for part in ("about", "text")}
    with files.writing(folder):
        with partial["about"].open("wb") as abouts, partial["text"].open("wb") as texts:
            for count, document in enumerate(documents, 1):  # noqa: B007
                abouts.write(line(about(document)))
                texts.write(line(document.text))
            for file in (abouts, texts):
                file.flush()
                os.fsync(file.fileno())
        for part, path in partial.items():
            path.replace(folder / f"{name}.{part}")
    return count


def finish(folder: pathlib.Path, name: str, counted: dict[str, Any]) -> None:
    """Says that a shard is whole, and what was counted."""
    files.write_text(folder / f"{name}.json", json.dumps(counted, ensure_ascii=True))


def counted(folder: pathlib.Path, name: str) -> dict[str, Any] | None:
    """What was counted of a shard that is whole, else None."""
    file = folder / f"{name}.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else None


def save(path: pathlib.Path, array: np.ndarray) -> None:
    """Writes an array as .npy."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    files.write_bytes(path, content.getvalue())


def load(path: pathlib.Path) -> np.ndarray:
    """An array of a .npy file, in memory as it is read."""
    return np.load(path, mmap_mode="r" if path.stat().st_size > 2**16 else None)


def line(value: Any) -> bytes:
    """A value as a line of JSON, in which half characters stay what they are."""
    text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def _lines(path: pathlib.Path) -> Iterator[str]:
    with path.open("rb") as file:
        for line in file:
            yield line.decode("utf-8", "surrogatepass")


def _some(lines: Iterable[str], left: np.ndarray | None) -> Iterator[tuple[int, str]]:
    if left is None:
        yield from enumerate(lines)
        return
    wanted = iter(left.tolist())
    at = next(wanted, -1)
    for n, line in enumerate(lines):
        if at < 0:
            return
        if n == at:
            yield n, line
            at = next(wanted, -1)


def _paired(abouts, texts: Iterator[str]) -> Iterator[tuple[int, dict, str]]:
    before = -1
    for n, about in abouts:
        for _ in range(n - before - 1):
            next(texts)
        yield n, about, next(texts)
        before = n

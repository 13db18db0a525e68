"""Text files of your own: one file, or a folder of them.

A file is a document, its group is the top-level folder it lies in, or its own name
without the suffix at the top. One long file is better cut: with `piece_bytes`, each
file is cut at blank lines in pieces of about that size, and each piece is a group of
its own, so that it can be split. Links are followed, hidden files left out; any other
file that is not UTF-8 text is an error that names it: what is skipped in silence is
missed.

    --config=configs/quickstart.py:text=books
"""

import fnmatch
import pathlib
import re
from collections.abc import Iterable, Iterator

from llm.corpus import file_reader
from llm.corpus.file_reader import File, Skip
from llm.corpus.file_source import Files
from llm.document import Document, Source
from llm.errors import InputError, MachineError

TINY = {"path": __file__, "piece_bytes": 500}

_PATTERN = "or narrow `pattern` to leave it out"


def make(
    *,
    path: str = "",
    pattern: str = "**/*",
    piece_bytes: int = 0,
    max_documents: int = 0,
) -> Source:
    """Makes the source.

    Args:
      path: a file or a folder.
      pattern: which files of the folder: `*.md` at its top, `**/*.md` at any depth.
      piece_bytes: cut files at blank lines in pieces of about this size; 0 does not.
      max_documents: at most so many files, evenly spread; 0 takes all.

    Raises:
      InputError: no such path, no files, or a file that is not UTF-8 text.
    """

    def files(skip: Skip) -> list[File]:
        found = _files(path, pattern, skip)
        count = min(max_documents or len(found), len(found))
        return [found[i * len(found) // count] for i in range(count)]

    def read(files: Iterable[File], skip: Skip) -> Iterator[Document]:
        for file, name, *_ in files:
            text = _read(file)
            if not text.strip():
                skip("empty", name)
                continue
            group = (
                name.partition("/")[0] if "/" in name else pathlib.PurePath(name).stem
            )
            if not piece_bytes:
                yield _document(name, text, group)
                continue
            for n, piece in enumerate(_pieces(text, piece_bytes)):
                yield _document(f"{name}#{n}", piece, f"{name}#{n}")

    return Files(files, read)


def _files(path: str, pattern: str, skip: Skip) -> list[File]:
    """The files, sorted by name."""
    if not path:
        raise InputError(
            got="source 'text' without a path",
            want="a text file or a folder of text files",
            do="name one: --config=configs/quickstart.py:text=PATH",
        )
    parts = pattern.split("/")

    def wanted(name: str) -> bool:
        return _matches(name.split("/"), parts)

    found = file_reader.files(path, f"text files that match {pattern!r}", wanted, skip)
    return sorted(found, key=lambda file: file.name)


def _matches(names: list[str], pattern: list[str]) -> bool:
    """Whether parts of a path are those of a pattern; `**` is any number of them."""
    if not pattern or not names:
        return not names and set(pattern) <= {"**"}
    if pattern[0] == "**":
        return _matches(names, pattern[1:]) or _matches(names[1:], pattern)
    first = fnmatch.fnmatchcase(names[0], pattern[0])
    return first and _matches(names[1:], pattern[1:])


def _read(file: pathlib.Path) -> str:
    try:
        content = file.read_bytes()
    except PermissionError as error:
        raise MachineError(
            got=f"no permission for {file}", want="to read it"
        ) from error
    if b"\0" in content:
        raise InputError(
            got=f"a binary file: {file} has a NUL at byte {content.index(0)}",
            want="UTF-8 text",
            do=f"remove it, {_PATTERN}",
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            got=f"{file}, which is not UTF-8 at byte {error.start}",
            want="UTF-8 text",
            do=f"convert it (iconv -t UTF-8), {_PATTERN}",
        ) from error


def _pieces(text: str, size: int) -> Iterator[str]:
    """Cuts after the first blank lines past `size` bytes; joined, it is `text`."""
    piece, filled = [], 0
    for part in re.split(r"((?:\r?\n){2,})", text):
        piece.append(part)
        filled += len(part.encode("utf-8"))
        if filled >= size and part.isspace():
            yield "".join(piece)
            piece, filled = [], 0
    if any(piece):
        yield "".join(piece)


def _document(id: str, text: str, group: str) -> Document:
    return Document(id, text, "text", group, "prose", len(text.encode("utf-8")))

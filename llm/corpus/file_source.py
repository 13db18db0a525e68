"""Sources of many files, which several processes can read at once.

A source is a function that yields documents. One of files is this, too, and declares
`parts` besides, which a runner can deal out, `read_part`, and the `fingerprint` of its
files, so that a runner reads again only what it must. Any other source is one part:
`in_parts` gives it the same methods.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from llm.corpus.file_reader import File, Skip
from llm.document import Document, Source

_PART_BYTES = 1 << 25  # of files that are read in one go
_CUT_BYTES = 1 << 23  # of a file that can be read by stretches
_PART_FILES = 1000

Documents = Iterator[Document | None]
# (path, name, start, stop) of `File`, as JSON has it; None is the whole source.
Part = Sequence[tuple[str, str, int, int]] | None


@dataclasses.dataclass(frozen=True)
class Files:
    """A source of files.

    Attributes:
      files: all of them, always in the same order; `partial(file_reader.files, …)`.
      read: the documents of some files, in their order; None for what was skipped.
      most: documents of the source, the first so many; 0 for all.
      cut: whether a file can be read by stretches of bytes.
    """

    files: Callable[[Skip], Iterable[File]]
    read: Callable[[Iterable[File], Skip], Documents]
    most: int = 0
    cut: Callable[[File], bool] = lambda file: False

    def fingerprint(self) -> str:
        """A hash of names and sizes, of which another says that the source changed."""
        sizes = sorted((f.name, f.path.stat().st_size) for f in self.files(_unsaid))
        return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()[:16]

    def parts(self, skip: Skip) -> tuple[list[Part], list[Any]]:
        """What is read in one go each, and what else their documents depend on."""
        if self.most:
            return [None], []
        found = [(file, file.path.stat()) for file in self.files(skip)]
        parts: list[list[tuple]] = [[]]
        filled = 0
        for file, stat in found:
            pieces = [(str(file.path), file.name, 0, 0)]
            if stat.st_size > _CUT_BYTES and self.cut(file):
                starts = range(0, stat.st_size, _CUT_BYTES)
                pieces = [(*pieces[0][:2], at, at + _CUT_BYTES) for at in starts]
            for piece in pieces:
                size = piece[3] - piece[2] or stat.st_size
                full = filled + size > _PART_BYTES or len(parts[-1]) >= _PART_FILES
                if parts[-1] and (full or len(pieces) > 1):
                    parts.append([])
                    filled = 0
                parts[-1].append(piece)
                filled += size
        # A file that changed is another source: what was made of it is not taken.
        return parts, [[(f.name, s.st_size, s.st_mtime_ns) for f, s in found]]

    def read_part(self, part: Part, skip: Skip) -> Iterator[Document]:
        """The documents of a part; an id may repeat from part to part."""
        if part is None:
            return self(skip)
        files = [File(pathlib.Path(path), *rest) for path, *rest in part]
        return (document for document in self.read(files, skip) if document is not None)

    def __call__(self, skip: Skip) -> Iterator[Document]:
        """The documents of all files; an id that was seen before is skipped."""
        return once(self.read(self.files(skip), skip), self.most, skip)


@dataclasses.dataclass(frozen=True)
class OnePart:
    """A source that declares no parts: it is read in one go."""

    source: Source

    def fingerprint(self) -> str:
        """Nothing is known of what it reads."""
        return ""

    def parts(self, skip: Skip) -> tuple[list[Part], list[Any]]:
        """The whole source."""
        return [None], []

    def read_part(self, part: Part, skip: Skip) -> Iterable[Document]:
        """Its documents."""
        return self.source(skip)


def in_parts(source: Source) -> Files | OnePart:
    """The source, if it declares the methods of `Files`; else as one part."""
    return source if hasattr(source, "parts") else OnePart(source)


def each(
    documents: Callable[[pathlib.Path, str, Skip], Documents],
) -> Callable[[Iterable[File], Skip], Documents]:
    """The `read` of `Files` whose files are read one by one.

    Args:
      documents: those of a file, of its path, its name and `skip`.
    """

    def read(files: Iterable[File], skip: Skip) -> Documents:
        for file, name, *_ in files:
            yield from documents(file, name, skip)

    return read


def once(documents: Documents, most: int, skip: Skip) -> Iterator[Document]:
    """The documents with an id that none before them has; at most so many, 0 for all.

    Of the ids a digest of eight bytes is kept, so that millions fit in memory.
    """
    seen, count = set(), 0
    for found in documents:
        if found is None:
            continue
        digest = hashlib.blake2b(found.id.encode(), digest_size=8).digest()
        if digest in seen:
            skip("id seen before", found.id)
            continue
        seen.add(digest)
        yield found
        count += 1
        if count == most:
            return


def _unsaid(reason: str, id: str) -> None:
    """Skips are told when the source is read."""

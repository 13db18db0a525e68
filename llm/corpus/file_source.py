"""Sources of many files, which several processes can read at once.

A source is a function that yields documents. One of files is this, too, and says
besides which files it has and how some of them are read, so that a runner can deal them
out and read again only what it must.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator

from llm.corpus.file_reader import File, Skip
from llm.corpus.record_fields import once
from llm.document import Document


@dataclasses.dataclass(frozen=True)
class Files:
    """A source of files.

    Attributes:
      files: all of them, always in the same order.
      read: the documents of some files, in their order; None for what was skipped.
      most: documents of the source, the first so many; 0 for all.
      cut: whether a file can be read by stretches of bytes.
    """

    files: Callable[[Skip], Iterable[File]]
    read: Callable[[Iterable[File], Skip], Iterator[Document | None]]
    most: int = 0
    cut: Callable[[File], bool] = lambda file: False

    def seen(self) -> str:
        """A hash of names and sizes, of which another says that the source changed."""
        held = sorted((f.name, f.path.stat().st_size) for f in self.files(_unsaid))
        return hashlib.sha256(json.dumps(held).encode()).hexdigest()[:16]

    def __call__(self, skip: Skip) -> Iterator[Document]:
        """The documents of all files; an id that was seen before is skipped."""
        return once(self.read(self.files(skip), skip), self.most, skip)


def _unsaid(reason: str, id: str) -> None:
    """Skips are told when the source is read."""

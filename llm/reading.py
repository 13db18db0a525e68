"""Files of others, read a piece at a time: what is broken is skipped and said.

A source of big files holds one line or record, never a file. Nothing here trusts its
input: links that lead in circles, a line without an end, a compressed file that is cut
off or that unpacks to far more than its size are passed over by `skip(reason, id)`.
Compression (gzip, bzip2, zstd) is told by the first bytes, whatever the name says.
"""

import bz2
import contextlib
import gzip
import io
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from llm.errors import InputError, MachineError

Skip = Callable[[str, str], None]

COMPRESSED = ("", ".gz", ".bz2", ".zst", ".zstd")
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# Text shrinks to a tenth, logs to a hundredth: what unpacks to more is no text.
_RATIO, _FREE = 200, 64 * 2**20
_WINDOW = 2**27  # of zstd, as its command line allows


class File(NamedTuple):
    """A file to read, or the records of it that begin in a stretch of bytes.

    Attributes:
      path: where it lies.
      name: what it is called in ids.
      start, stop: of the stretch; a stop of 0 is the end.
    """

    path: pathlib.Path
    name: str
    start: int = 0
    stop: int = 0


class Damaged(Exception):
    """A file that cannot be read on; its message says why."""


def package(name: str, module: str, import_: Callable):
    """What `import_()` gives; a package that is missing is InputError with its extra.

    Args:
      name: as pip knows it.
      module: as Python knows it: an ImportError of another is not hidden.
    """
    try:
        return import_()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module:
            raise
        raise InputError(
            got=f"no package {name}",
            want="the extra `data`",
            do=f"pip install 'llm-lifecycle[data]', or {name} alone",
        ) from error


def files(
    path: str, what: str, wanted: Callable[[str], bool], skip: Skip
) -> Iterator[File]:
    """A file, or those of a folder in order, links followed once.

    Args:
      what: what is looked for, as in `a folder of JSON lines`.
      wanted: whether a path below the folder, as `a/b.txt`, is one; a file that is
        named always is.

    Raises:
      InputError: no such path, one that cannot be read, or a folder without any.
    """
    root = pathlib.Path(path)
    if path and root.is_file():
        yield File(root, root.name)
        return
    if "://" in path:
        raise InputError(
            got=f"path {path!r}",
            want="a path of a file system, such as a mounted bucket",
        )
    if not path or not root.is_dir():
        raise InputError(
            got=f"path {path!r}, which does not exist" if path else "no path",
            want=f"{what}, or a folder of such files",
            do="name one: --config=configs/quickstart.py:text=jsonl:PATH",
        )
    seen, found = set(), False

    def closed(error: OSError) -> None:
        if pathlib.Path(error.filename) == root:
            raise MachineError(got=f"{error.strerror}: {root}", want="to read it")
        skip("folder that cannot be read", os.path.relpath(error.filename, root))

    for folder, folders, names in os.walk(root, onerror=closed, followlinks=True):
        place = os.stat(folder)
        if (place.st_dev, place.st_ino) in seen:
            skip("link to a folder that was read", os.path.relpath(folder, root))
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = pathlib.Path(folder, name)
            place = file.relative_to(root).as_posix()
            if name.startswith(".") or not wanted(place):
                continue
            if not os.path.isfile(file):  # unlike pathlib's, False without permission
                skip("no file, or a link to none", place)
                continue
            found = True
            yield File(file, place)
    if not found:
        raise InputError(got=f"no {what} in {path}", want="one file or more")


def ending(*suffixes: str) -> Callable[[str], bool]:
    """A test of names by their suffixes, with or without that of a compression."""
    ends = tuple(s + c for s in suffixes for c in COMPRESSED)
    return lambda name: name.lower().endswith(ends)


@contextlib.contextmanager
def opened(file: pathlib.Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked; reading may raise `Damaged`.

    Raises:
      InputError: no permission, or no package for zstd.
    """
    try:
        raw = file.open("rb")
    except PermissionError as error:
        raise MachineError(
            got=f"no permission for {file}", want="to read it"
        ) from error
    with raw:
        first = raw.peek(4)[:4]
        if first.startswith(_GZIP):
            unpacked = gzip.GzipFile(fileobj=raw)
        elif first.startswith(b"BZh"):
            unpacked = bz2.BZ2File(raw)
        elif first == _ZSTD:
            zstandard = package("zstandard", "zstandard", _zstandard)
            unpacked = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
            unpacked = unpacked.stream_reader(raw, read_across_frames=True)
        else:
            yield raw
            return
        yield io.BufferedReader(_Guarded(unpacked, raw), 2**16)


def lines(file: pathlib.Path, name: str, longest: int, skip: Skip):
    """(number, bytes) of each line of at most `longest` bytes, without its end."""
    number = 0
    try:
        with opened(file) as stream:
            while line := stream.readline(longest + 1):
                number += 1
                if len(line) > longest and not line.endswith(b"\n"):
                    skip(f"line longer than {longest} bytes", f"{name}:{number}")
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(2**20)
                    continue
                yield number, line.rstrip(b"\r\n")
        if not number:
            skip("empty file", name)
    except Damaged as error:
        skip(f"damaged: {error}", f"{name}:{number + 1}")


def whole(file: pathlib.Path, name: str, most: int, skip: Skip) -> bytes | None:
    """All bytes of a file; None, and skipped, if they are too many or damaged."""
    try:
        with opened(file) as stream:
            content = stream.read(most + 1)
    except Damaged as error:
        skip(f"damaged: {error}", name)
        return None
    if len(content) > most:
        skip(f"larger than {most} bytes", name)
        return None
    return content


class _Guarded(io.RawIOBase):
    """Unpacked bytes, as long as they are in proportion to the packed ones."""

    def __init__(self, unpacked, raw):
        self._unpacked, self._raw, self._given = unpacked, raw, 0
        self._broken = (EOFError, zlib.error, gzip.BadGzipFile)
        if isinstance(unpacked, bz2.BZ2File):
            self._broken += (OSError, ValueError)
        elif not isinstance(unpacked, gzip.GzipFile):
            self._broken += (_zstandard().ZstdError,)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer) -> int:
        """Fills a part of the buffer; `Damaged` for a bad or exploding file."""
        try:
            # Not `read`, which loses what stands before the damage.
            got = self._unpacked.read1(len(buffer))
        except EOFError as error:
            raise Damaged("cut off") from error
        except self._broken as error:
            # What the error says may hold a part of the file.
            raise Damaged("cannot be unpacked") from error
        self._given += len(got)
        if self._given > _FREE + _RATIO * self._raw.tell():
            raise Damaged(f"unpacks to more than {_RATIO} times its size")
        buffer[: len(got)] = got
        return len(got)


def _zstandard():
    import zstandard

    return zstandard

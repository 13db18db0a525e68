"""Files of others, read a piece at a time: what is broken is skipped and said.

A source of big files holds one line or record, never a file. Nothing here trusts its
input: links that lead in circles, a line without an end, a compressed file that is cut
off or that unpacks to far more than its size are passed over by `skip(reason, id)`.
The first bytes say how a file is compressed (gzip, bzip2, zstd, xz), whatever its name
is; another compression is skipped by its name. A compressed file that ends before its
end mark is cut off, and counted, even where its library returns what it has and no
error.
"""

import bz2
import contextlib
import io
import lzma
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from llm.errors import InputError, MachineError
from llm.files import relative_to, shown

Skip = Callable[[str, str], None]

COMPRESSED = ("", ".gz", ".bz2", ".zst", ".zstd", ".xz")
_GZIP, _XZ = b"\x1f\x8b\x08", b"\xfd7zXZ\0"
# A frame of zstd, or one to skip, as pzstd writes them in front.
_ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16)))
# What cannot be read, by the first bytes of a file and by the end of its name.
_UNREAD = {
    b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z", b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x9d": "compress", b"LZIP": "lzip", b"Rar!": "rar", b"\xff\x06\0\0": "snappy",
}  # fmt: skip
_UNREAD_NAMES = (
    ".zip", ".7z", ".lz4", ".z", ".lz", ".lzma", ".br", ".rar", ".sz", ".snappy",
    ".lzo",
)  # fmt: skip
# Text shrinks to a tenth, logs to a hundredth: what unpacks to more is no text.
_RATIO, _FREE = 200, 64 * 2**20
_WINDOW = 2**27  # of zstd, as its command line allows
# Compressed bytes of zstd at a time: four of them may unpack to 128 KiB.
_ZSTD_STEP = 2**10


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
        yield File(root, shown(root.name))
        return
    if "://" in path:
        raise InputError(
            got=f"path {path!r}",
            want="a path of a file system, such as a mounted bucket",
        )
    if not path or not root.is_dir():
        raise InputError(
            got=f"path {path!r}, which does not exist{relative_to(path)}"
            if path
            else "no path",
            want=f"{what}, or a folder of such files",
            do="name one: --config=configs/quickstart.py:text=jsonl:PATH",
        )
    seen, found = set(), False

    def closed(error: OSError) -> None:
        if pathlib.Path(error.filename) == root:
            raise MachineError(got=f"{error.strerror}: {root}", want="to read it")
        skip("folder that cannot be read", _place(error.filename, root))

    for folder, folders, names in os.walk(root, onerror=closed, followlinks=True):
        place = os.stat(folder)
        if (place.st_dev, place.st_ino) in seen:
            skip("link to a folder that was read", _place(folder, root))
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = pathlib.Path(folder, name)
            place = file.relative_to(root).as_posix()
            if name.startswith("."):
                continue
            if not wanted(place):
                stem, end = os.path.splitext(place)
                if end.lower() in _UNREAD_NAMES and wanted(stem):
                    skip(
                        f"compression that is not read: {end.lower()}",
                        shown(place),
                    )
                continue
            if not os.path.isfile(file):  # unlike pathlib's, False without permission
                skip("no file, or a link to none", shown(place))
                continue
            found = True
            yield File(file, shown(place))
    if not found:
        raise InputError(got=f"no {what} in {path}", want="one file or more")


def _place(folder: str, root: pathlib.Path) -> str:
    return shown(os.path.relpath(folder, root))


def part(path: str, name: str) -> str:
    """The name of a file as a part of ids: '' if `path` is that one file."""
    return name if pathlib.Path(path).is_dir() else ""


def ending(*suffixes: str) -> Callable[[str], bool]:
    """A test of names by their suffixes, with or without that of a compression."""
    ends = tuple(s + c for s in suffixes for c in COMPRESSED)
    return lambda name: name.lower().endswith(ends)


def plain_name(name: str) -> str:
    """A name in lower case, without the suffix of a compression."""
    name = name.lower()
    suffixes = (c for c in COMPRESSED if c and name.endswith(c))
    return name.removesuffix(next(suffixes, ""))


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
    with raw, unpacked(raw) as stream:
        yield stream


@contextlib.contextmanager
def unpacked(raw: io.BufferedReader) -> Iterator[BinaryIO]:
    """The bytes of a file or of a part of one, likewise."""
    first = raw.peek(8)[:8]
    if first.startswith(_GZIP):
        inner = _Members(raw)
    elif first.startswith(b"BZh"):
        inner = bz2.BZ2File(raw)
    elif first.startswith(_XZ):
        inner = lzma.LZMAFile(raw)  # noqa: SIM115
    elif first.startswith(_ZSTD):
        inner = _Frames(raw)
    elif unread := [name for mark, name in _UNREAD.items() if first.startswith(mark)]:
        inner = _Unread(unread[0])
    else:
        yield raw
        return
    yield io.BufferedReader(_Guarded(inner, raw), 2**16)


def lines(file: pathlib.Path, name: str, longest: int, skip: Skip):
    """(number, bytes) of each line of at most `longest` bytes, without its end.

    What is lost in a broken member of gzip counts as one line; the next one is read.
    """
    number, ended = 0, False
    with opened(file) as stream:
        while not ended:
            try:
                while line := stream.readline(longest + 1):
                    number += 1
                    if len(line) > longest and not line.endswith(b"\n"):
                        skip(f"line longer than {longest} bytes", f"{name}:{number}")
                        while line and not line.endswith(b"\n"):
                            line = stream.readline(2**20)
                        continue
                    yield number, line.rstrip(b"\r\n")
                ended = True
            except Damaged as error:
                number += 1
                skip(f"damaged: {error}", f"{name}:{number}")
                if not stream.raw.go_on():
                    return
    if not number:
        skip("empty file", name)


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


def find(
    stream: BinaryIO,
    mark: bytes,
    begins: Callable[[bytes], bool],
    start: int,
    stop: int = 0,
) -> int:
    """Where something next begins from `start` on, before `stop`; -1 if nowhere.

    Args:
      begins: whether bytes that begin with the mark are it, and do not just look so.
      stop: 0 is the end.
    """
    stream.seek(start)
    kept = b""
    while part := stream.read(2**20):
        place, whole = -1, kept + part
        while (place := whole.find(mark, place + 1)) >= 0:
            at = start - len(kept) + place
            if stop and at >= stop:
                return -1
            stream.seek(at)
            if begins(stream.read(512)):
                return at
        start += len(part)
        stream.seek(start)
        kept = whole[-len(mark) + 1 :]
        if stop and start - len(kept) >= stop:
            return -1
    return -1


class _Members:
    """The members of a gzip file, one after the other, past broken ones if asked."""

    def __init__(self, raw: BinaryIO):
        self._raw, self._start = raw, 0
        self._member, self._packed = zlib.decompressobj(31), b""

    def read1(self, size: int) -> bytes:
        """The next bytes, at most so many; b"" at the end."""
        while True:
            packed = self._packed or self._raw.read1(2**16)
            if self._member.eof:
                packed = packed.lstrip(b"\0")  # as tapes have it
                if not packed and not self._raw.peek(1):
                    return b""
                self._packed = packed
                if packed:
                    self._start = self._raw.tell() - len(packed)
                    self._member = zlib.decompressobj(31)
                continue
            got = self._member.decompress(packed, size)
            self._packed = self._member.unconsumed_tail or self._member.unused_data
            if got:
                return got
            if not packed and not self._member.eof:
                raise EOFError

    def go_on(self) -> bool:
        """Goes to where the next member begins; False if there is none."""
        self._start = find(self._raw, _GZIP, _is_member, self._start + 1)
        if self._start < 0:
            return False
        self._raw.seek(self._start)
        self._member, self._packed = zlib.decompressobj(31), b""
        return True


class _Frames:
    """The frames of a zstd file, one after the other.

    The library's own reader returns nothing at the end of a file that is cut off, as it
    does at the end of a whole one; a frame of it knows whether it is at its end.
    """

    def __init__(self, raw: BinaryIO):
        self._raw, self._left = raw, memoryview(b"")
        zstandard = package("zstandard", "zstandard", _zstandard)
        self._zstd = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        self._frame, self._packed = self._zstd.decompressobj(), b""

    def read1(self, size: int) -> bytes:
        """The next bytes, at most so many; b"" at the end."""
        while not self._left:
            packed = self._packed or self._raw.read(_ZSTD_STEP)
            self._packed = b""
            if not packed:
                if self._frame is not None and not self._frame.eof:
                    raise EOFError
                return b""
            if self._frame is None:
                self._frame = self._zstd.decompressobj()
            self._left = memoryview(self._frame.decompress(packed))
            if self._frame.eof:
                self._packed, self._frame = self._frame.unused_data, None
        got, self._left = bytes(self._left[:size]), self._left[size:]
        return got


class _Unread:
    """A file of a compression that is not read."""

    def __init__(self, name: str):
        self._name = name

    def read1(self, size: int) -> bytes:
        """Raises Damaged, with the name of the compression."""
        raise Damaged(f"compressed by {self._name}, which is not read")


def _is_member(first: bytes) -> bool:
    try:
        return bool(zlib.decompressobj(31).decompress(first, 1))
    except zlib.error:
        return False


class _Guarded(io.RawIOBase):
    """Unpacked bytes, as long as they are in proportion to the packed ones."""

    def __init__(self, unpacked, raw):
        self._unpacked, self._raw, self._given = unpacked, raw, 0
        self._broken = (zlib.error,)
        if isinstance(unpacked, bz2.BZ2File | lzma.LZMAFile):
            self._broken = (OSError, ValueError, lzma.LZMAError)
        elif isinstance(unpacked, _Frames):
            self._broken = (_zstandard().ZstdError,)

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

    def go_on(self) -> bool:
        """Goes behind what is damaged; False if nothing is found there."""
        if self._given > _FREE + _RATIO * self._raw.tell():
            return False
        return isinstance(self._unpacked, _Members) and self._unpacked.go_on()


def _zstandard():
    import zstandard

    return zstandard

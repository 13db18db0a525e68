"""The GGUF format: one file with a model's settings, tokenizer and tensors.

A file is a header, settings (`llama.block_count`: 30), what each tensor is called, its
shape, number format and place, and then the tensors. Nothing of it is trusted: a file
may come from anywhere. Every count is compared with the bytes that are left before
anything of that size is made, and each way to be wrong is one line. Tensors are read
from a memory map, one at a time. Format: ggml-org/ggml, docs/gguf.md. The reader of the
library `gguf` trusts every count, and takes 14.6 s for the settings of a vocabulary of
128,000 where this one takes 0.5 s.

    held = open_file("model.gguf")
    held.keys["general.architecture"]
    held.tensors["token_embd.weight"].read()      # float32
"""

import itertools
import math
import mmap
import os
import pathlib
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from llm.errors import InputError
from llm.interop.gguf_blocks import Format, find, formats, pack, unpack

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_DIMS = 4
# Types of settings: numbers by their struct letters.
_LETTERS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"
}  # fmt: skip
_BOOL, _TEXT, _ARRAY = 7, 8, 9
_UINT32, _INT32, _FLOAT32, _UINT64 = 4, 5, 6, 10


class Packed(NamedTuple):
    """Where a tensor lies, and how its numbers are packed."""

    path: pathlib.Path
    format: Format
    shape: tuple[int, ...]
    start: int
    bytes: int

    def read(self) -> np.ndarray:
        """The tensor in float32."""
        raw = np.memmap(self.path, np.uint8, "r", self.start, (self.bytes,))
        return unpack(raw, self.format, self.shape)


class File(NamedTuple):
    """A file: its settings, arrays of numbers as numpy has them, and its tensors."""

    path: pathlib.Path
    keys: dict[str, Any]
    tensors: dict[str, Packed]


def open_file(path: str | os.PathLike) -> File:
    """The settings and tensors of a file; the tensors' numbers are not read yet.

    Raises:
      InputError: no such file, not a GGUF file, or a damaged one.
    """
    path = pathlib.Path(path)
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < 24:
                raise _broken(path, "fewer bytes than its header has")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
                return _parsed(_Cursor(path, held))
    except OSError as error:
        raise InputError(
            got=f"{path} ({error.strerror})", want="a file that can be read"
        ) from error


class _Cursor:
    """Reads on from a place; never past the end."""

    def __init__(self, path: pathlib.Path, held: mmap.mmap):
        self.path, self.held, self.at = path, held, 0

    def left(self) -> int:
        return len(self.held) - self.at

    def take(self, size: int, what: str) -> bytes:
        if size > self.left():
            raise _broken(self.path, f"{what} of {size} bytes with {self.left()} left")
        self.at += size
        return self.held[self.at - size : self.at]

    def number(self, letter: str, what: str) -> Any:
        size = struct.calcsize(f"<{letter}")
        return struct.unpack(f"<{letter}", self.take(size, what))[0]

    def count(self, smallest: int, what: str) -> int:
        """How many follow, of `smallest` bytes each at the least."""
        count = self.number("Q", what)
        if count * smallest > self.left():
            raise _broken(self.path, f"{count} {what} with {self.left()} bytes left")
        return count

    def text(self, what: str) -> str:
        raw = self.take(self.count(1, f"characters of {what}"), what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _broken(self.path, f"{what} that is not UTF-8") from error

    def value(self, kind: int, what: str) -> Any:
        if kind in _LETTERS:
            return self.number(_LETTERS[kind], what)
        if kind == _BOOL:
            return self.number("B", what) != 0
        if kind == _TEXT:
            return self.text(what)
        if kind != _ARRAY:
            raise _broken(self.path, f"{what} of type {kind}")
        kind = self.number("I", what)
        if kind == _TEXT:
            return [self.text(what) for _ in range(self.count(8, f"texts of {what}"))]
        letter = "?" if kind == _BOOL else _LETTERS.get(kind)
        if letter is None:
            raise _broken(self.path, f"{what}, an array of type {kind}")
        size = struct.calcsize(f"<{letter}")
        count = self.count(size, f"numbers of {what}")
        raw = self.take(count * size, what)
        return np.frombuffer(raw, np.dtype(letter).newbyteorder("<"))


def _parsed(cursor: _Cursor) -> File:
    path = cursor.path
    if cursor.take(4, "the mark") != _MAGIC:
        raise InputError(got=f"{path}, which is not GGUF", want="a GGUF file")
    version = cursor.number("I", "the version")
    if version not in _VERSIONS:
        raise InputError(
            got=f"{path} of GGUF version {version}",
            want="version 2 or 3, little-endian",
        )
    tensors = cursor.number("Q", "the number of tensors")
    keys: dict[str, Any] = {}
    for _ in range(cursor.count(13, "settings")):
        name = cursor.text("the name of a setting")
        if name in keys:
            raise _broken(path, f"the setting {name!r} twice")
        keys[name] = cursor.value(cursor.number("I", repr(name)), repr(name))
    if tensors * 24 > cursor.left():
        raise _broken(path, f"{tensors} tensors with {cursor.left()} bytes left")
    alignment = keys.get("general.alignment", _ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= 1 << 16:
        raise _broken(path, f"general.alignment {alignment!r}")
    listed = [_entry(cursor) for _ in range(tensors)]
    base = -(-cursor.at // alignment) * alignment
    found: dict[str, Packed] = {}
    for name, form, shape, offset, size in listed:
        if name in found:
            raise _broken(path, f"tensor {name!r} twice")
        if offset % alignment:
            raise _broken(path, f"tensor {name!r} at the odd place {offset}")
        if base + offset + size > len(cursor.held):
            raise _broken(
                path,
                f"tensor {name!r} ending at byte {base + offset + size} of "
                f"{len(cursor.held)}",
            )
        found[name] = Packed(path, form, shape, base + offset, size)
    spans = sorted((t.start, t.start + t.bytes, name) for name, t in found.items())
    for (_, end, one), (start, _, other) in itertools.pairwise(spans):
        if start < end:
            raise _broken(path, f"tensors {one!r} and {other!r} in the same bytes")
    return File(path, keys, found)


def _entry(cursor):
    """(name, format, shape, offset, bytes) of the next tensor."""
    name = cursor.text("the name of a tensor")
    dims = cursor.number("I", f"tensor {name!r}")
    if dims > _DIMS:
        raise _broken(cursor.path, f"tensor {name!r} with {dims} dimensions")
    sizes = [cursor.number("Q", f"tensor {name!r}") for _ in range(dims)]
    kind = cursor.number("I", f"tensor {name!r}")
    offset = cursor.number("Q", f"tensor {name!r}")
    if 0 in sizes:
        raise _broken(cursor.path, f"tensor {name!r} of no size")
    form = find(kind)
    if form is None:
        raise InputError(
            got=f"{cursor.path} with tensor {name!r} in the number format {kind}",
            want=f"one of {', '.join(known.name for known in formats())}",
            do="convert the file to Q8_0, or import the Hugging Face folder",
        )
    if (sizes[0] if sizes else 1) % form.count:
        raise _broken(
            cursor.path,
            f"tensor {name!r} in {form.name} with rows of {sizes[0] if sizes else 1}",
        )
    size = math.prod(sizes) // form.count * form.bytes
    return name, form, tuple(reversed(sizes)), offset, size


def _broken(path, what):
    return InputError(
        got=f"{path}: {what}",
        want="a whole GGUF file",
        do="fetch it again: it is cut off or damaged",
    )


class Made(NamedTuple):
    """A tensor to write: its values are made when its turn comes."""

    name: str
    shape: tuple[int, ...]
    format: str
    make: Callable[[], np.ndarray]

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        form = find(self.format)
        return math.prod(self.shape) // form.count * form.bytes


def write_file(
    path: pathlib.Path, keys: Mapping[str, Any], tensors: Iterable[Made]
) -> None:
    """Writes a file, a tensor at a time.

    Args:
      keys: texts, bools, ints, floats, lists of texts or of ints, and float arrays.
    """
    tensors = list(tensors)
    head = [_MAGIC, struct.pack("<IQQ", _VERSIONS[-1], len(tensors), len(keys))]
    for name, value in keys.items():
        head += [_text(name), *_value(value)]
    offset = 0
    for tensor in tensors:
        sizes = tensor.shape[::-1]
        head += [
            _text(tensor.name),
            struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes),
        ]
        head.append(struct.pack("<IQ", find(tensor.format).number, offset))
        offset += -(-tensor.bytes // _ALIGNMENT) * _ALIGNMENT
    start = b"".join(head)
    with open(path, "wb") as file:
        file.write(start + b"\0" * (-len(start) % _ALIGNMENT))
        for tensor in tensors:
            values = np.asarray(tensor.make())
            if values.shape != tensor.shape:
                raise ValueError(f"{tensor.name}: {values.shape}, want {tensor.shape}")
            raw = pack(values, tensor.format)
            file.write(raw + b"\0" * (-len(raw) % _ALIGNMENT))


def _text(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> list[bytes]:
    if isinstance(value, bool):
        return [struct.pack("<IB", _BOOL, value)]
    if isinstance(value, int):
        kind = _UINT32 if 0 <= value < 1 << 32 else _UINT64
        return [struct.pack("<I" + _LETTERS[kind], kind, value)]
    if isinstance(value, float):
        return [struct.pack("<If", _FLOAT32, value)]
    if isinstance(value, str):
        return [struct.pack("<I", _TEXT), _text(value)]
    texts = bool(len(value)) and isinstance(value[0], str)
    floats = isinstance(value, np.ndarray)
    kind = _TEXT if texts else _FLOAT32 if floats else _INT32
    head = struct.pack("<IIQ", _ARRAY, kind, len(value))
    if texts:
        return [head, *map(_text, value)]
    return [head, np.asarray(value, "<f4" if floats else "<i4").tobytes()]

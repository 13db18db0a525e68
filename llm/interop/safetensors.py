"""The safetensors format, read lazily and written as a stream.

A file is eight bytes with the length of a header, a JSON header that gives each tensor
its dtype, shape and place, and the bytes. Nothing of it is trusted: a file may come
from anywhere, and each way to be wrong is one line that names the file and the tensor.
Tensors are views of a memory map, so a model larger than the memory can be read a
tensor at a time. Format: github.com/huggingface/safetensors, README, "Format".

The library of that name (0.8) is not used: of a damaged header it says "invalid shape,
data type, or offset for tensor" and not of which, and its `save_file` wants all tensors
at once, where a stream of one at a time exports what does not fit in memory.
"""

import itertools
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from llm import files
from llm.errors import InputError

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
# Of other files, which we do not read.
_NOT_READ = {
    "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "F6_E2M3",
    "F6_E3M2", "U16", "U32", "U64", "C64",
}  # fmt: skip
_HEADER_LIMIT = 100_000_000  # bytes, as the reference has it
_INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
# What an altered header or index raises.
_BROKEN = (LookupError, TypeError, ValueError, AttributeError, RecursionError)


class Stored(NamedTuple):
    """Where a tensor lies: offsets are bytes in its file."""

    path: pathlib.Path
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int

    def read(self) -> np.ndarray:
        """A read-only view of the tensor."""
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        return np.memmap(self.path, self.dtype, "r", self.start, self.shape)


def open_folder(folder: str | os.PathLike) -> dict[str, Stored]:
    """{name: tensor} of a model folder: one file, or an index and its files.

    Raises:
      InputError: files that are missing, malformed, or disagree with the index.
    """
    folder = pathlib.Path(folder)
    if (folder / _INDEX).is_file():
        return _open_indexed(folder)
    if (folder / _WHOLE).is_file():
        return open_file(folder / _WHOLE)
    raise InputError(got=f"no weights in {folder}", want=f"{_WHOLE} or {_INDEX}")


def _open_indexed(folder: pathlib.Path) -> dict[str, Stored]:
    path = folder / _INDEX
    try:
        where = json.loads(path.read_text("utf-8"))["weight_map"]
        named = {str(name): str(file) for name, file in where.items()}
    except _BROKEN as error:
        raise InputError(
            got=f"{path}, which is not an index ({error})",
            want='{"weight_map": {tensor: file}}',
        ) from error
    found = {}
    for file in sorted(set(named.values())):
        if pathlib.PurePath(file).name != file or file in ("", ".", ".."):
            raise InputError(
                got=f"{path}, which points to {file!r}", want="files beside it"
            )
        found[file] = open_file(folder / file)
    tensors = {}
    for name, file in named.items():
        if name not in found[file]:
            raise InputError(
                got=f"{folder / file} without tensor {name!r}",
                want=f"what {path.name} says",
                do="fetch the files again",
            )
        tensors[name] = found[file][name]
    return tensors


def open_file(path: str | os.PathLike) -> dict[str, Stored]:
    """{name: tensor} of one file; only its header is read."""
    path = pathlib.Path(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_HEADER_LIMIT, size - 8):
                raise _broken(path, f"a header of {length} bytes in {size}")
            header = json.loads(file.read(length))
    except OSError as error:
        raise InputError(
            got=f"{path} ({error.strerror})", want="a file that can be read"
        ) from error
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"a header that is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _broken(path, "a header that is no table")
    header.pop("__metadata__", None)
    tensors, spans = {}, []
    for name, entry in header.items():
        tensors[name], span = _entry(path, name, entry, 8 + length, size)
        spans.append((*span, name))
    spans.sort()
    for (_, end, one), (start, _, other) in itertools.pairwise(spans):
        if start < end:
            raise _broken(path, f"tensors {one!r} and {other!r} in the same bytes")
    return tensors


def _entry(path, name, entry, base, size):
    try:
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        start, end = entry["data_offsets"]
        whole = all(type(n) is int and n >= 0 for n in (*shape, start, end))
    except _BROKEN as error:
        raise _broken(path, f"tensor {name!r} without dtype, shape or place") from error
    if dtype in _NOT_READ:
        raise InputError(
            got=f"{path}: tensor {name!r} of dtype {dtype}, which is not supported",
            want=f"one of {', '.join(DTYPES)}",
            do="convert the model to bfloat16 first",
        )
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _broken(path, f"tensor {name!r} of dtype {dtype!r}")
    if not whole or end - start != math.prod(shape) * DTYPES[dtype].itemsize:
        raise _broken(
            path, f"tensor {name!r} of shape {shape} in bytes {start} to {end}"
        )
    if base + end > size:
        raise _broken(path, f"tensor {name!r} ending at byte {base + end} of {size}")
    return Stored(path, DTYPES[dtype], shape, base + start), (start, end)


def _broken(path, what):
    return InputError(
        got=f"{path}: {what}",
        want="a whole safetensors file",
        do="fetch it again: it is cut off or damaged",
    )


class Made(NamedTuple):
    """A tensor to write: its values are made when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def write_folder(
    folder: pathlib.Path, tensors: Iterable[Made], *, shard_bytes: int = 5 * 10**9
) -> None:
    """Writes a model's tensors: one file, or several of `shard_bytes` and an index."""
    shards: list[list[Made]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(t.bytes for t in shards[-1]) + tensor.bytes > shard_bytes:
            shards.append([])
        shards[-1].append(tensor)
    if len(shards) == 1:
        write_file(folder / _WHOLE, shards[0])
        return
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_file(folder / file, shard)
        where |= {tensor.name: file for tensor in shard}
    total = sum(t.bytes for shard in shards for t in shard)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    files.write_text(folder / _INDEX, json.dumps(index, indent=1) + "\n")


def write_file(path: pathlib.Path, tensors: list[Made]) -> None:
    """Writes one file, a tensor at a time."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": names[np.dtype(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.bytes],
        }
        end += tensor.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for chunk in _chunks(tensors):
            file.write(chunk)


def _chunks(tensors: list[Made]) -> Iterator[bytes]:
    for tensor in tensors:
        values = np.asarray(tensor.make(), tensor.dtype)
        if values.shape != tensor.shape:
            raise ValueError(f"{tensor.name}: {values.shape}, want {tensor.shape}")
        yield values.tobytes()

"""GGUF's number formats: plain numbers, and blocks that share scales.

The library `gguf` (extra `hf`), with the rounding of llama.cpp, packs and unpacks
blocks; plain numbers need only numpy. A tensor is unpacked some blocks at a time, as
the library's temporaries are several times its size.
"""

import functools
import importlib
from typing import NamedTuple

import ml_dtypes
import numpy as np

from llm.errors import InputError


class Format(NamedTuple):
    """How numbers are packed: `count` of them in a block of `bytes`.

    Attributes:
      number: of the format in a file.
    """

    number: int
    name: str
    count: int
    bytes: int


_PLAIN = (Format(0, "F32", 1, 4), Format(1, "F16", 1, 2), Format(30, "BF16", 1, 2))
_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16}
_SLAB = 1 << 14  # blocks unpacked at once


@functools.cache
def formats() -> tuple[Format, ...]:
    """The formats that can be read: plain ones, and those that the library knows."""
    library = _library()
    sizes = library.GGML_QUANT_SIZES
    blocks = [
        Format(kind.value, kind.name, *sizes[kind])
        for kind in library.GGMLQuantizationType
        if sizes[kind][0] > 1 and _unpacks(library, kind)
    ]
    return (*_PLAIN, *blocks)


def find(key: int | str) -> Format | None:
    """The format of a name, or of a number in a file; None for one that is not read.

    Raises:
      InputError: blocks, and no package gguf.
    """
    plain = next((form for form in _PLAIN if key in form[:2]), None)
    return plain or next((form for form in formats() if key in form[:2]), None)


def unpack(raw: np.ndarray, form: Format, shape: tuple[int, ...]) -> np.ndarray:
    """float32 numbers of a tensor from its bytes."""
    if form.name in _DTYPES:
        return raw.view(np.dtype(_DTYPES[form.name])).astype(np.float32).reshape(shape)
    library = _library()
    kind = library.GGMLQuantizationType[form.name]
    values = np.empty(shape, np.float32)
    blocks, flat = raw.reshape(-1, form.bytes), values.reshape(-1, form.count)
    for first in range(0, len(blocks), _SLAB):
        part = np.ascontiguousarray(blocks[first : first + _SLAB])
        flat[first : first + _SLAB] = library.quants.dequantize(part, kind)
    return values


def pack(values: np.ndarray, name: str) -> bytes:
    """The bytes of numbers in a format; rows of those with blocks are whole blocks."""
    if name in _DTYPES:
        return np.ascontiguousarray(values).astype(_DTYPES[name]).tobytes()
    library = _library()
    values = np.ascontiguousarray(values, np.float32)
    return library.quants.quantize(values, library.GGMLQuantizationType[name]).tobytes()


def _library():
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise InputError(
            got="no package gguf",
            want="it, for numbers of GGUF in blocks",
            do="pip install 'llm-lifecycle[hf]', or dtype=f16",
        ) from error


def _unpacks(library, kind) -> bool:
    try:
        size = library.GGML_QUANT_SIZES[kind][1]
        library.quants.dequantize(np.zeros((1, size), np.uint8), kind)
    except NotImplementedError:
        return False
    return True

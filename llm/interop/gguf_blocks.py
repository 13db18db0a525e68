"""GGUF's number formats: blocks of 32 or 256 numbers that share scales.

`n blocks`. A block of Q8_0 is a float16 and 32 int8; of Q4_0, a float16 and 32 numbers
of four bits, the first 16 of them in the low halves of its bytes. The formats with _1
have an offset, those of five bits keep the fifth apart, and those with K are 256
numbers in parts with small scales of their own. Formats: ggml-org/ggml, ggml-common.h;
the rounding when numbers are packed is that of its reference functions.
"""

from collections.abc import Callable
from typing import NamedTuple

import ml_dtypes
import numpy as np


class Format(NamedTuple):
    """How numbers are packed.

    Attributes:
      count: numbers in a block.
      bytes: of a block.
      unpack: from bytes [n, bytes] to float32 [n, count].
    """

    name: str
    count: int
    bytes: int
    unpack: Callable[[np.ndarray], np.ndarray]


def _plain(dtype):
    def unpack(raw):
        return raw.view(np.dtype(dtype)).astype(np.float32)

    return unpack


def _half(raw):
    """float16 bytes [n, 2] as float32 [n, 1]."""
    return np.ascontiguousarray(raw).view("<f2").astype(np.float32)


def _nibbles(raw):
    """[n, 2 m]: the low halves of m bytes, then the high ones."""
    return np.concatenate([raw & 15, raw >> 4], axis=1)


def _fifth(raw):
    """[n, 32] from four bytes: bit i is the fifth bit of number i, in its place."""
    return np.unpackbits(raw, axis=1, bitorder="little") << 4


def _q4_0(raw):
    return _half(raw[:, :2]) * (_nibbles(raw[:, 2:]).astype(np.float32) - 8)


def _q4_1(raw):
    return _half(raw[:, :2]) * _nibbles(raw[:, 4:]) + _half(raw[:, 2:4])


def _q5_0(raw):
    q = _nibbles(raw[:, 6:]) | _fifth(raw[:, 2:6])
    return _half(raw[:, :2]) * (q.astype(np.float32) - 16)


def _q5_1(raw):
    q = _nibbles(raw[:, 8:]) | _fifth(raw[:, 4:8])
    return _half(raw[:, :2]) * q + _half(raw[:, 2:4])


def _q8_0(raw):
    return _half(raw[:, :2]) * raw[:, 2:].view(np.int8)


def _scales_k(raw):
    """Scales and offsets [n, 8], six bits each, from twelve bytes."""
    low, middle, high = raw[:, :4], raw[:, 4:8], raw[:, 8:]
    scales = [low & 63, (high & 15) | ((low >> 2) & 48)]
    offsets = [middle & 63, (high >> 4) | ((middle >> 2) & 48)]
    return np.concatenate(scales, axis=1), np.concatenate(offsets, axis=1)


def _affine_k(raw, q):
    """Numbers from q [n, 8, 32] and the first sixteen bytes of their blocks."""
    scales, offsets = _scales_k(raw[:, 4:16])
    scale = (_half(raw[:, :2]) * scales)[:, :, None]
    offset = (_half(raw[:, 2:4]) * offsets)[:, :, None]
    return (scale * q - offset).reshape(len(raw), 256)


def _halves_k(raw):
    """[n, 8, 32] from 128 bytes: of each 32, the low halves, then the high ones."""
    parts = raw.reshape(len(raw), 4, 1, 32)
    return np.concatenate([parts & 15, parts >> 4], axis=2).reshape(len(raw), 8, 32)


def _q4_k(raw):
    return _affine_k(raw, _halves_k(raw[:, 16:]))


def _q5_k(raw):
    bits = np.unpackbits(raw[:, 16:48, None], axis=2, bitorder="little")
    fifth = bits.transpose(0, 2, 1)  # bit i of each byte is of part i
    return _affine_k(raw, _halves_k(raw[:, 48:]) | (fifth << 4))


def _q6_k(raw):
    n = len(raw)
    low = raw[:, :128].reshape(n, 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], axis=2).reshape(n, 2, 4, 32)
    high = raw[:, 128:192].reshape(n, 2, 1, 32)
    high = np.concatenate([(high >> s) & 3 for s in (0, 2, 4, 6)], axis=2)
    q = (low | (high << 4)).astype(np.float32) - 32
    scale = _half(raw[:, 208:]) * raw[:, 192:208].view(np.int8)
    return (scale[:, :, None] * q.reshape(n, 16, 16)).reshape(n, 256)


# By the number of the type in a file.
FORMATS = {
    0: Format("F32", 1, 4, _plain("<f4")),
    1: Format("F16", 1, 2, _plain("<f2")),
    2: Format("Q4_0", 32, 18, _q4_0),
    3: Format("Q4_1", 32, 20, _q4_1),
    6: Format("Q5_0", 32, 22, _q5_0),
    7: Format("Q5_1", 32, 24, _q5_1),
    8: Format("Q8_0", 32, 34, _q8_0),
    12: Format("Q4_K", 256, 144, _q4_k),
    13: Format("Q5_K", 256, 176, _q5_k),
    14: Format("Q6_K", 256, 210, _q6_k),
    30: Format("BF16", 1, 2, _plain(ml_dtypes.bfloat16)),
}
NUMBERS = {form.name: number for number, form in FORMATS.items()}


def _pack_q8_0(x):
    scale = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    turned = x * _inverse(scale)
    q = np.copysign(np.floor(np.abs(turned) + np.float32(0.5)), turned)
    raw = scale.astype("<f2").view(np.uint8)
    return np.concatenate([raw, q.astype(np.int8).view(np.uint8)], axis=1)


def _pack_q4_0(x):
    """The number of the largest size becomes -8, so the scale may be negative."""
    at = np.abs(x).argmax(axis=1)[:, None]
    scale = np.take_along_axis(x, at, axis=1) / np.float32(-8)
    turned = x.astype(np.float64) * _inverse(scale).astype(np.float64)
    q = np.trunc(turned + 8.5).clip(0, 15).astype(np.uint8)
    raw = scale.astype("<f2").view(np.uint8)
    return np.concatenate([raw, q[:, :16] | (q[:, 16:] << 4)], axis=1)


def _inverse(scale):
    safe = np.where(scale == 0, np.float32(1), scale)
    return np.where(scale == 0, np.float32(0), 1 / safe).astype(np.float32)


_PACK = {"Q8_0": _pack_q8_0, "Q4_0": _pack_q4_0}
_SLAB = 1 << 14  # blocks turned at once


def unpack(raw: np.ndarray, form: Format, shape: tuple[int, ...]) -> np.ndarray:
    """float32 numbers of a tensor from its bytes, a slab of blocks at a time."""
    made = np.empty(shape, np.float32)
    blocks = raw.reshape(-1, form.bytes)
    flat = made.reshape(-1, form.count)
    step = _SLAB * (1 if form.count > 1 else 256)
    for first in range(0, len(blocks), step):
        part = np.ascontiguousarray(blocks[first : first + step])
        flat[first : first + step] = form.unpack(part)
    return made


def pack(values: np.ndarray, name: str) -> bytes:
    """The bytes of numbers in format F32, F16, Q8_0 or Q4_0.

    The last axis of those with blocks is a multiple of 32.
    """
    if name not in _PACK:
        dtype = {"F32": "<f4", "F16": "<f2"}[name]
        return np.ascontiguousarray(values).astype(dtype).tobytes()
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, 32)
    made = [
        _PACK[name](blocks[first : first + _SLAB])
        for first in range(0, len(blocks), _SLAB)
    ]
    return b"".join(part.tobytes() for part in made)

"""TensorBoard event files from scratch: no TensorFlow, no protobuf, no tensorboard.

An event file is a row of TFRecords, each a protobuf `Event`, and scalars need five
fields of it, so they are encoded by hand here:

    TFRecord  u64 length, u32 masked crc32c of it, the bytes, u32 masked crc32c of them
    Event     1 wall_time double, 2 step int64, 3 file_version, 5 Summary, 7 SessionLog
    Summary   1 value, repeated: (1 tag, 2 simple_value float)

Formats: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto and
tensorflow/core/framework/summary.proto. A reader shows a step once although a run was
killed and went back: the new file starts with SessionLog START at the first step that
will be written again, and readers drop what older files say from that step on.

    with EventWriter("runs/a/tensorboard", first_step=1) as writer:
        writer.scalars(10, {"loss": 2.9})
"""

import pathlib
import socket
import struct
import time
from collections.abc import Mapping

from llm import files

_START = 1  # SessionLog.SessionStatus.START


class EventWriter:
    """Appends scalars to one new event file in a folder.

    Args:
      folder: where TensorBoard looks (`tensorboard --logdir`).
      first_step: the lowest step that this writer will write; older files' values of
        that step and later are superseded.
    """

    def __init__(self, folder: str | pathlib.Path, first_step: int = 0):
        folder = pathlib.Path(folder)
        with files.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # Readers take files in the order of their names, so these sort by time.
            seconds, rest = divmod(time.time_ns(), 10**9)
            name = f"events.out.tfevents.{seconds:010d}.{rest:09d}.{_host()}"
            self._path = folder / name
            self._file = self._path.open("ab", buffering=0)
        self._write(_bytes(3, b"brain.Event:2"), step=0)
        self._write(_bytes(7, _varint_field(1, _START)), step=first_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of a step: name -> number."""
        summary = b"".join(
            _bytes(1, _bytes(1, name.encode()) + _float(2, value))
            for name, value in values.items()
        )
        self._write(_bytes(5, summary), step)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def _write(self, fields: bytes, step: int) -> None:
        event = _double(1, time.time()) + _varint_field(2, step) + fields
        # One unbuffered write: a killed process leaves whole records, or one torn at
        # the end of the file, which readers leave out.
        with files.writing(self._path):
            self._file.write(record(event))


def record(data: bytes) -> bytes:
    """The TFRecord of some bytes."""
    length = struct.pack("<Q", len(data))
    return b"".join(
        (length, _masked_crc(length), data, _masked_crc(data)),
    )


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), as in RFC 3720 appendix B.4."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc_table() -> tuple[int, ...]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_TABLE = _crc_table()


def _masked_crc(data: bytes) -> bytes:
    # TFRecords rotate and shift the checksum, as a checksum of checksums is weak.
    crc = crc32c(data)
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(value: int) -> bytes:
    # A negative int64 is its two's complement in ten bytes.
    value &= 0xFFFFFFFFFFFFFFFF
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _varint_field(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
    try:
        packed = struct.pack("<f", value)
    except OverflowError:  # beyond float32, where protobuf writes an infinity
        packed = struct.pack("<f", float("inf") if value > 0 else float("-inf"))
    return _varint(field << 3 | 5) + packed


def _host() -> str:
    return socket.gethostname().replace("/", "-") or "localhost"

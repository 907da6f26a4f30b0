"""A file of events that TensorBoard reads: scalars and pictures, each in a record with its checksums.

Written here because the writer that torch wraps loads two hundred modules, a tenth of a second at each start.
The format is that of TFRecord (length and content, each with its CRC-32C) around TensorBoard's Event message
(`tensorboard/compat/proto/event.proto` and `summary.proto`), of which these functions make what is used.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import time
from pathlib import Path

from PIL import Image

VERSION = b"brain.Event:2"
START = 1  # a session log's status: what was logged for this step and later ones is no longer shown
POLYNOMIAL = 0x82F63B78  # of CRC-32C, its bits reversed
RGB = 3


class EventFile:
    """One more file of events in a folder.

    first_step: what other files of the folder say of this step and of later ones is no longer shown.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._add(_text(3, VERSION), step=0)
        self._add(_text(7, _number(1, START)), step=first_step)

    def scalar(self, name: str, value: float, step: int) -> None:
        """A number of a curve."""
        self._summary(name, _real(2, value), step)

    def picture(self, name: str, picture: Image.Image, step: int) -> None:
        """A picture, stored without loss."""
        stored = io.BytesIO()
        picture.convert("RGB").save(stored, "PNG")
        sizes = _number(1, picture.height) + _number(2, picture.width) + _number(3, RGB)
        self._summary(name, _text(4, sizes + _text(4, stored.getvalue())), step)

    def close(self) -> None:
        """Nothing can be added after this."""
        self._file.close()

    def _summary(self, name: str, value: bytes, step: int) -> None:
        tag = _text(1, name.encode("utf-8", "backslashreplace"))
        self._add(_text(5, _text(1, tag + value)), step=step)

    def _add(self, content: bytes, *, step: int) -> None:
        event = _field(1, 1) + struct.pack("<d", time.time()) + (_number(2, step) if step else b"") + content
        length = struct.pack("<Q", len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))
        self._file.flush()


def _field(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _number(field: int, value: int) -> bytes:
    return _field(field, 0) + _varint(value)


def _text(field: int, value: bytes) -> bytes:
    return _field(field, 2) + _varint(len(value)) + value


def _real(field: int, value: float) -> bytes:
    return _field(field, 5) + _float(value)


def _float(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:  # larger than float32 holds
        return struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def _table() -> tuple[int, ...]:
    entries = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (POLYNOMIAL if entry & 1 else 0)
        entries.append(entry)
    return tuple(entries)


_TABLE = _table()


def _checksum(content: bytes) -> bytes:
    """The CRC-32C, turned and shifted as TFRecord wants it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

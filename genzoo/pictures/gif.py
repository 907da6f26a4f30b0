"""Animated GIFs that keep every frame. Pillow's own writer drops a frame that equals the one before."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_EXTENSION, _IMAGE, _END = 0x21, 0x2C, b"\x3b"
_CONTROL, _COMMENT, _APPLICATION = b"\x21\xf9\x04", b"\x21\xfe", b"\x21\xff\x0b"
_TABLE, _TABLE_SIZE, _INTERLACED = 0x80, 0x07, 0x40  # flags
_SCREEN = 13  # bytes of the signature and of the screen's description, before its table of colours


def encode_gif(frames: Sequence[Image], *, hundredths: int, comment: str = "") -> bytes:
    """An endless animation: every frame whole, with its own colours, shown for `hundredths` of a second."""
    parts = [_parts(frame) for frame in frames]
    width, height = frames[0].size
    screen = width.to_bytes(2, "little") + height.to_bytes(2, "little") + bytes(3)
    text = comment.encode()[:255]
    about = _COMMENT + bytes([len(text)]) + text + b"\0" if text else b""
    endless = _APPLICATION + b"NETSCAPE2.0" + b"\x03\x01\0\0\0"
    control = _CONTROL + b"\x04" + hundredths.to_bytes(2, "little") + b"\0\0"
    return b"".join([b"GIF89a", screen, about, endless, *(control + part for part in parts), _END])


def _parts(frame: Image) -> bytes:
    """One frame with the table of its colours, as it stands within an animation."""
    buffer = io.BytesIO()
    frame.save(buffer, format="GIF")
    data = buffer.getvalue()
    flags, place = data[10], _SCREEN
    size = 3 * 2 ** ((flags & _TABLE_SIZE) + 1)
    table, place = data[place : place + size], place + size
    while data[place] == _EXTENSION:
        place += 2
        while data[place]:
            place += data[place] + 1
        place += 1
    assert flags & _TABLE
    assert data[place] == _IMAGE
    own = data[place + 9] & _INTERLACED | _TABLE | flags & _TABLE_SIZE
    return data[place : place + 9] + bytes([own]) + table + data[place + 10 : -1]

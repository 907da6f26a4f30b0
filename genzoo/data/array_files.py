"""Arrays in npz and npy files of unknown origin: looked at before memory is used; nothing in them runs."""

from __future__ import annotations

import contextlib
import math
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from genzoo.core.errors import DataError
from genzoo.core.reading import reason, shown

MAX_BYTES = 64 * 1024**3
# pictures hardly shrink, zeros shrink a thousandfold: what grows so much beyond this size is a bomb
MAX_GROWTH, GROWTH_FROM = 100, 256 * 1024**2
MAPPED_FROM = 256 * 1024**2  # bytes: larger arrays stay on the disk
LOCAL_HEADER = 30  # bytes of a zip member before its name

Array = np.ndarray[Any, Any]


def array_names(path: Path) -> list[str]:
    """The arrays of an npz file, by name; none of another file. Raises DataError for a damaged one."""
    with _opened(path) as file:
        if file.read(4)[:2] != b"PK":
            return []
        with zipfile.ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]


def read_array(path: Path, name: str = "arr_0") -> Array:
    """One array of an npz file, or that of an npy file. Raises DataError, saying what is there instead."""
    where = shown(path)
    names = array_names(path)
    with _opened(path) as file:
        if not names:
            head = file.read(12)
            if not head.startswith(b"\x93NUMPY"):
                raise DataError(f"{where} is no npz or npy file", why=f"it begins with {head!r}")
            file.seek(0)
            return _checked(file, path.stat().st_size, where)
        if name not in names:
            listed = ", ".join(shown(other) for other in names[:8])
            raise DataError(
                f"{where} holds no {name}",
                why=f"it has {listed}",
                fix=f"name the array {name}, as np.savez does",
            )
        with zipfile.ZipFile(file) as archive:
            member = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
            if member.file_size > max(GROWTH_FROM, MAX_GROWTH * member.compress_size):
                raise DataError(
                    f"{where}: {name} would grow from {member.compress_size} bytes to {member.file_size}",
                    why="no picture is packed so tightly",
                    fix="write it with np.savez, without compression",
                )
            if member.compress_type == zipfile.ZIP_STORED and member.file_size > MAPPED_FROM:
                return _mapped(path, file, member, where)
            with archive.open(member) as part:
                return _checked(cast(BinaryIO, part), member.file_size, f"{where}: {name}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, when it is a regular one; whatever is wrong in it is a DataError."""
    where = shown(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError("this is not a regular file", where=where)
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"there is no file or folder {where}") from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError("this file cannot be read", where=where, why=reason(error)) from error


def _mapped(path: Path, file: BinaryIO, member: zipfile.ZipInfo, where: str) -> Array:
    """A stored member on the disk, read as it is looked at: 50,000 pictures are larger than many memories."""
    file.seek(member.header_offset)
    local = file.read(LOCAL_HEADER)
    lengths = struct.unpack("<HH", local[-4:])
    begin = member.header_offset + LOCAL_HEADER + sum(lengths)
    file.seek(begin)
    dtype, shape, by_columns = _described(file, member.file_size, f"{where}: {member.filename}")
    order = "F" if by_columns else "C"
    return np.memmap(path, dtype, "r", offset=file.tell(), shape=shape, order=order)  # type: ignore[call-overload]


def _checked(file: BinaryIO, size: int, where: str) -> Array:
    """The array that a file of `size` bytes holds from here on, if its header tells the truth about it."""
    dtype, shape, by_columns = _described(file, size, where)
    needed = math.prod(shape) * dtype.itemsize
    content = file.read(needed)
    if len(content) != needed:
        raise DataError(f"{where} ends before its array does")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")


def _described(file: BinaryIO, size: int, where: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """dtype, shape, and whether columns come first, of a plain array that the file does hold."""
    begin = file.tell()
    try:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(file)
    except ValueError as error:  # numpy's own advice, to trust the file, is not passed on
        raise DataError(f"{where} has a damaged header") from error
    if dtype.hasobject:
        raise DataError(f"{where} holds Python objects; only plain arrays of numbers are read")
    needed, left = math.prod(shape) * dtype.itemsize, size - (file.tell() - begin)
    if needed != left or needed > MAX_BYTES:
        raise DataError(
            f"{where} says that it holds {dtype} {shape}, {needed} bytes, and there are {left}",
            why=None if needed <= MAX_BYTES else f"at most {MAX_BYTES} bytes are read",
        )
    return dtype, shape, by_columns


def check_levels(array: Array, source: str, *, dims: int) -> Array:
    """The array, if it holds pictures (n, h, w, c), or clips of as many more axes: uint8, 1 or 3 channels."""
    layout = "(n, h, w, 3)" if dims == 4 else "(n, frames, h, w, 3)"
    if array.dtype != np.uint8:
        raise _wrong_type(array, source, layout if array.ndim != dims else "")
    if array.ndim == dims and not array.size:
        raise DataError(f"{source} holds no pictures: it is {array.shape}")
    if array.ndim != dims or array.shape[-1] not in (1, 3):
        first = array.ndim == dims and array.shape[-3] in (1, 3)
        raise DataError(
            f"{source} is {array.shape}: " + ("channels come last, " if first else "it should be ") + layout,
            fix="move the axis: np.moveaxis(x, -3, -1)" if first else None,
        )
    return array


def _wrong_type(array: Array, source: str, layout: str) -> DataError:
    """The error for values that are no levels.   layout: of pictures, where the shape is another."""
    if array.dtype.kind not in "fiub" or not array.size or layout:
        wanted = f"uint8 {layout}".rstrip()
        return DataError(f"{source} holds {array.dtype} {array.shape}; pictures are {wanted} 0..255")
    bad = np.size(array) - np.count_nonzero(np.isfinite(array))
    if bad:
        return DataError(
            f"{source} holds {array.dtype}, and {bad:,} of {array.size:,} values are NaN or infinite;"
            " pictures are uint8 0..255",
            fix="look at what made them: no conversion makes pictures of these",
        )
    low, high = array.min(), array.max()
    formula = "(x * 255)" if array.dtype.kind == "b" else "x.clip(0, 255)"
    if array.dtype.kind == "f" and high <= 1:
        formula = "(x * 127.5 + 128).clip(0, 255)" if low < 0 else "(x * 255).round()"
    elif high > 255:
        formula = "(x // 257).clip(0, 255)"
    return DataError(
        f"{source} holds {array.dtype} in [{low:.4g}, {high:.4g}]; pictures are uint8 0..255",
        fix=f"convert: {formula}.astype(np.uint8)",
    )

"""Pictures as one npz file of the form that ADM's evaluator reads: arr_0 uint8 (n, h, w, 3), arr_1 labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from genzoo.core.errors import DataError, UsageError
from genzoo.core.files import write_zip
from genzoo.data.picture_sets import PictureSet


def npz_name(count: int, height: int, width: int) -> str:
    """The usual name of such a file."""
    return f"samples_{count}x{height}x{width}x3.npz"


def write_picture_npz(path: Path, pictures: PictureSet, labels: Sequence[int] | None = None) -> Path:
    """Write all pictures in their order, one in memory at a time.   labels: one for each, or None.

    The header is npy 1.0 in C order, the members are stored: the evaluator streams them. Raises DataError for
    pictures of unlike size, UsageError for labels of another number.
    """
    if labels is not None and len(labels) != len(pictures):
        raise UsageError(f"{len(labels)} labels for {len(pictures)} pictures")
    shape = pictures.read(0).shape
    if len(shape) != 3:
        raise UsageError("an npz of samples holds pictures, and these are clips", fix="leave --npz out")

    def write(member: IO[bytes]) -> None:
        _header(member, (len(pictures), *shape), np.dtype(np.uint8))
        for index in range(len(pictures)):
            picture = pictures.read(index)
            if picture.shape != shape:
                sizes = [" x ".join(map(str, one[:2])) for one in (picture.shape, shape)]
                raise DataError(f"{pictures.name(index)} is {sizes[0]}, the first picture {sizes[1]}")
            member.write(np.ascontiguousarray(picture).tobytes())

    members: dict[str, Callable[[IO[bytes]], object]] = {"arr_0.npy": write}
    if labels is not None:
        members["arr_1.npy"] = partial(_write_whole, np.asarray(labels, dtype=np.int64))
    return write_zip(path, members)


def _write_whole(array: np.ndarray[Any, Any], member: IO[bytes]) -> None:
    _header(member, array.shape, array.dtype)
    member.write(array.tobytes())


def _header(member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, described)

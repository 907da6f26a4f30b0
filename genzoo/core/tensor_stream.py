"""A safetensors file written tensor by tensor: nobody ever holds all of them.

The layout follows from names, shapes and dtypes alone, so the header goes first: the length of a JSON text,
the text, padded with blanks to a multiple of 8, then the tensors by dtype and name, without gaps. The bytes
are those of `safetensors.torch.save_file`, whatever the number of processes that hold the tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from genzoo.core.files import disk_errors, open_new, put_in_place, sync_path
from genzoo.core.leftovers import temporary
from genzoo.core.processes import World
from genzoo.core.sharded import whole

# in the order in which the format's library lays tensors out
CODES: Mapping[torch.dtype, str] = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ALIGNMENT = 8
PIECE = 16 << 20  # bytes that are handed to the disk at once


def put_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, writes: bool = True
) -> str | OSError:
    """Write a new file and sync it; the sha256 of its bytes, or what the disk refused.

    writes: False in processes that hold parts of the tensors and do not write: all call this together, with
    the same names. The refusal is returned, not raised: the others still wait to hand over their parts.
    """
    file = _File(path) if writes else None
    names = in_order(tensors)
    if file is not None:
        file.add(header(tensors, metadata))
    for name in names:
        tensor = whole(tensors[name])
        if file is not None:
            file.add(as_bytes(tensor))
    return "" if file is None else file.close()


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], world: World
) -> Path:
    """Replace a file in one step, as `core.files.write_file` does. All that hold parts call it together.

    Raises DataError in all of them when the disk refuses; the old file is then untouched.
    """
    part = temporary(path)

    def begin() -> None:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)

    def finish() -> None:
        with disk_errors(path):
            try:
                if isinstance(outcome, OSError):
                    raise outcome
                put_in_place(part, path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise

    world.on_first(begin)
    outcome = put_tensors(part, tensors, metadata, writes=world.is_first)
    world.on_first(finish)
    return path


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The content of a small safetensors file; the same tensors and metadata give the same bytes."""
    return b"".join([header(tensors, metadata), *(as_bytes(tensors[name]) for name in in_order(tensors))])


def header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> memoryview:
    """The file's first bytes. Only names, shapes and dtypes are looked at."""
    about: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    start = 0
    for name in in_order(tensors):
        tensor = tensors[name]
        end = start + math.prod(tensor.shape) * tensor.dtype.itemsize
        shape = list(tensor.shape)
        about[name] = {"dtype": CODES[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(about, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return memoryview(len(text).to_bytes(8, "little") + text)


def in_order(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names as the file has them."""
    ranks = {dtype: rank for rank, dtype in enumerate(CODES)}
    return sorted(tensors, key=lambda name: (ranks[tensors[name].dtype], name.encode()))


def as_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on any device, without a copy where it lies on the CPU in one piece."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


class _File:
    """A file that grows, is hashed by a second thread meanwhile, and remembers what the disk refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refused: OSError | None = None
        self._digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="genzoo-hash")
        self._hashing: Future[None] | None = None
        self._file: BinaryIO | None = None
        try:
            self._file = open_new(path)
        except OSError as error:
            self.refused = error

    def add(self, data: memoryview) -> None:
        if self.refused is not None or self._file is None:
            return
        try:
            for start in range(0, len(data), PIECE):
                piece = data[start : start + PIECE]
                self._wait()
                self._hashing = self._thread.submit(self._digest.update, piece)
                _write_all(self._file, piece)
        except OSError as error:
            self.refused = error

    def close(self) -> str | OSError:
        self._wait()
        self._thread.shutdown()
        try:
            if self._file is not None:
                self._file.close()
            if self.refused is None:
                sync_path(self.path)
        except OSError as error:
            self.refused = self.refused or error
        return self.refused or self._digest.hexdigest()

    def _wait(self) -> None:
        if self._hashing is not None:
            self._hashing.result()
        self._hashing = None


def _write_all(file: BinaryIO, data: memoryview) -> None:
    while data:  # a nearly full disk takes a part first
        data = data[file.write(data) :]

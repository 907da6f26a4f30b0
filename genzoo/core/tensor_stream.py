"""A safetensors file written tensor by tensor: nobody ever holds all of them.

The layout follows from names, shapes and dtypes alone, so the header goes first: the length of a JSON text,
the text, padded with blanks to a multiple of 8, then the tensors by dtype and name, without gaps. The bytes
are those of `safetensors.torch.save_file`, whatever the number of processes that hold the tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from genzoo.core.files import disk_errors, open_new, put_in_place, sync_path
from genzoo.core.leftovers import temporary
from genzoo.core.processes import World
from genzoo.core.sharded import whole
from genzoo.core.tensor_layout import as_bytes, header, in_order

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

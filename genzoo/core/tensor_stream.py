"""A safetensors file written tensor by tensor: nobody ever holds all of them.

The layout follows from names, shapes and dtypes alone, so the header goes first: the length of a JSON text,
the text, padded with blanks to a multiple of 8, then the tensors by dtype and name, without gaps. The bytes
are those of `safetensors.torch.save_file`, whatever the number of processes that hold the tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

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
    return begin_tensors(path, tensors, metadata, writes=writes).digest()


def begin_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, writes: bool = True
) -> HashedFile:
    """`put_tensors` whose hash and sync may go on while the next file is written: `digest` waits for them.

    Until then tensors that lie in this machine's memory are read, and must stay as they are.
    """
    file = HashedFile(path if writes else None)
    names = in_order(tensors)
    if writes:
        file.add(header(tensors, metadata))
    for name in names:
        tensor = whole(tensors[name])
        if writes:
            stays = tensor is tensors[name] and tensor.device.type == "cpu" and tensor.is_contiguous()
            file.add(as_bytes(tensor), stays=stays)
    file.close()
    return file


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


class Segment(NamedTuple):
    """Bytes of a file from `offset` on, and their sha256."""

    offset: int
    size: int
    sha256: str


class HashedFile:
    """A file that is written and hashed by a second thread meanwhile; it remembers what the disk refused.

    path: None writes nothing.   open_file: `open_new`, or `open_to_fill` for a file that others fill, too.
    """

    def __init__(self, path: Path | None, open_file: Callable[[Path], BinaryIO] = open_new) -> None:
        self.path = path
        self.refused: OSError | None = None
        self._threads: list[ThreadPoolExecutor] = []
        self._hashing: Future[None] | None = None
        self._syncing: Future[None] | None = None
        self._file: BinaryIO | None = None
        self._hashes: list[tuple[int, Any]] = []  # where each segment begins
        self._ends: list[int] = []
        if path is not None:
            self._hasher = self._thread("genzoo-hash")
            try:
                self._file = open_file(path)
            except OSError as error:
                self.refused = error

    def add(self, data: memoryview, *, at: int | None = None, stays: bool = False) -> None:
        """Write bytes behind the others, or at a place.

        stays: they are somebody's who keeps them; others are kept here until they are hashed, one piece at
        a time.
        """
        if self.refused is not None or self._file is None:
            return
        try:
            self._turn_to(at)
            for start in range(0, len(data), PIECE):
                piece = data[start : start + PIECE]
                if not stays:
                    self._wait()
                self._hashing = self._hasher.submit(self._hashes[-1][1].update, piece)
                _write_all(self._file, piece)
            self._ends[-1] += len(data)
        except OSError as error:
            self.refused = error

    def close(self) -> None:
        """Nothing follows: begin to sync."""
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError as error:
            self.refused = self.refused or error
        if self.refused is None and self.path is not None:
            self._syncing = self._thread("genzoo-sync").submit(sync_path, self.path)

    def segments(self) -> list[Segment] | OSError:
        """What was added, once it is on the disk, neighbours as one; or what the disk refused."""
        self._wait()
        try:
            if self._syncing is not None:
                self._syncing.result()
        except OSError as error:
            self.refused = error
        for thread in self._threads:
            thread.shutdown()
        if self.refused is not None:
            return self.refused
        pairs = zip(self._hashes, self._ends, strict=True)
        return [Segment(start, end - start, digest.hexdigest()) for (start, digest), end in pairs]

    def digest(self) -> str | OSError:
        """The sha256 of all that was added one behind the other, once it is on the disk; or the refusal."""
        found = self.segments()
        return found if isinstance(found, OSError) else "".join(one.sha256 for one in found)

    def _turn_to(self, place: int | None) -> None:
        """Let what follows be a segment of its own, unless it continues the last one."""
        end = self._ends[-1] if self._ends else 0
        place = end if place is None else place
        if self._ends and place == end:
            return
        if self._file is not None and place != end:
            self._file.seek(place)
        self._hashes.append((place, hashlib.sha256()))
        self._ends.append(place)

    def _wait(self) -> None:
        if self._hashing is not None:
            self._hashing.result()
        self._hashing = None

    def _thread(self, name: str) -> ThreadPoolExecutor:
        self._threads.append(ThreadPoolExecutor(1, thread_name_prefix=name))
        return self._threads[-1]


def _write_all(file: BinaryIO, data: memoryview) -> None:
    while data:  # a nearly full disk takes a part first
        data = data[file.write(data) :]

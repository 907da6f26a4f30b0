"""Writing files: whole or not at all, on the disk before they have their name, readable as the umask says.

Everything is written beside its place under a name of this call alone, synced, and renamed. A killed process
leaves at most a `.tmp-*` sibling, which no reader takes for a file of its own and the next writer removes.
What the disk refuses is a DataError with the path and the reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Literal, TextIO

from safetensors import SafetensorError

from genzoo.core.errors import DataError, UsageError
from genzoo.core.leftovers import TEMPORARY, remove, temporary, tidy
from genzoo.core.process_identity import WINDOWS

if TYPE_CHECKING:
    from torch import Tensor

Content = bytes | str | Callable[[Path], object]
"""What a file shall hold: bytes, text (UTF-8), or a function that writes a file of the name it is given."""

OF_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")  # whoever sees such a name takes it for one file


def write_file(path: str | Path, content: Content, *, sync: bool = True) -> Path:
    """Replace a file in one step: readers see the old or the new content, never a part.

    Folders above it are made.   sync: False only where losing the file with the power harms nobody.
    Raises DataError when the disk refuses; the old file is then untouched.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tidy(path.parent)
        if callable(content):
            # in a folder of its own: a library that makes a temporary file beside it leaves none behind
            with scratch_folder(path) as folder:
                part = folder / temporary(path).name
                put_file(part, content, sync=sync)
                part.replace(path)
        else:
            part = temporary(path)
            try:
                put_file(part, content, sync=sync)
                part.replace(path)
            except BaseException:
                remove(part)
                raise
    return path


def write_zip(path: str | Path, members: Mapping[str, Callable[[IO[bytes]], object]]) -> Path:
    """An archive of stored members, each written by a function; any of them may pass 4 GB.

    Whole or not at all, as `write_file`; members of the same content give the same bytes on any day.
    """

    def fill(part: Path) -> None:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name, write in members.items():
                entry = zipfile.ZipInfo(name)  # of the format's first day, not of today
                entry.external_attr = 0o600 << 16
                with archive.open(entry, "w", force_zip64=True) as member:
                    write(member)

    return write_file(path, fill)


def write_json(path: str | Path, value: Any, *, default: Callable[[Any], Any] | None = None) -> Path:
    """Replace a JSON file in one step.   default: as for json.dumps."""
    return write_file(path, json.dumps(value, indent=2, default=default) + "\n")


def write_folder(
    path: str | Path,
    fill: Mapping[str, Content] | Callable[[Path], object],
    *,
    existing: Literal["refuse", "keep", "replace"] = "refuse",
) -> Path:
    """Make a folder in one step: it appears complete, or not at all.

    fill: its files by name, folders in the name included, or a function that fills the empty folder it is
    given.   existing: what happens when there is one already with something in it, or one appears meanwhile:
    a UsageError, nothing, or the new one in its place. Raises DataError when the disk refuses.
    """
    path = Path(path)
    if path.suffix.lower() in OF_FILES:
        raise UsageError(
            f"{path} would be a folder, and is named like a file", fix=f"leave {path.suffix} out of its name"
        )
    if existing == "keep" and path.is_dir():
        return path
    if existing == "refuse" and path.exists() and not _is_empty(path):
        raise _exists(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tidy(path.parent)
        part = temporary(path)
        try:
            part.mkdir()
            _fill(part, fill)
            _settle(part)
            _move(part, path, existing)
        finally:
            remove(part)
    return path


def set_aside(path: Path) -> Path:
    """Rename a file or folder to a free `aside_*` beside it, where no reader looks. Raises DataError."""
    with disk_errors(path, "this cannot be set aside"):
        return path.rename(free_name(path.parent, f"aside_{path.name}"))


def free_name(folder: Path, name: str) -> Path:
    """A path in a folder that nothing has yet: the name, or the name with a number behind it."""
    candidates = (folder / (name if number == 0 else f"{name}.{number}") for number in range(10_000))
    return next(path for path in candidates if not (path.exists() or path.is_symlink()))


def put_file(path: Path, content: Content, *, sync: bool = True) -> None:
    """Write a file under its own name, for a place where no reader looks yet. Raises OSError."""
    if callable(content):
        # the writer may make files private, as safetensors does; the user's umask decides here
        path.touch(exist_ok=False)
        mode = path.stat().st_mode
        content(path)
        _set_mode(path, mode)
    else:
        path.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
    if sync:
        sync_path(path)


def as_safetensors(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Callable[[Path], None]:
    """Tensors as a file's content, for `write_file` and its like; the same give the same bytes."""

    def write(path: Path) -> None:
        # not the format's own library, which puts metadata in another order at every call
        from genzoo.core.tensor_layout import as_bytes, header, in_order

        with path.open("wb") as file:
            file.write(header(tensors, metadata or {}))
            for name in in_order(tensors):
                file.write(as_bytes(tensors[name]))

    return write


def open_new(path: Path) -> BinaryIO:
    """A new file for bytes that come one after another, where no reader looks yet. Raises OSError."""
    tidy(path.parent)
    return path.open("xb", buffering=0)


def make_sized(path: Path, size: int) -> None:
    """A new file of so many bytes, to be filled by several processes. Raises OSError."""
    tidy(path.parent)
    with path.open("xb") as file:
        file.truncate(size)


def open_to_fill(path: Path) -> BinaryIO:
    """A file that `make_sized` made, for bytes at their places. Raises OSError."""
    return path.open("r+b", buffering=0)


def put_in_place(part: Path, path: Path) -> None:
    """Give a finished and synced `temporary(path)` its name, in place of what had it. Raises OSError."""
    part.replace(path)


def open_log(path: Path) -> TextIO:
    """A text file that grows: each finished line is handed to the operating system at once."""
    # names of files may hold bytes that are no UTF-8, and are written as they are
    return path.open("a", encoding="utf-8", errors="surrogateescape", buffering=1)


def sync_path(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive a power loss."""
    if WINDOWS and path.is_dir():
        return  # it has no such call, and its file system orders names by itself
    descriptor = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """An empty folder for the time of the block, in the folder of a file that is to be made."""
    folder = temporary(beside)
    folder.mkdir()
    try:
        yield folder
    finally:
        remove(folder)


@contextlib.contextmanager
def disk_errors(path: Path, what: str = "the file cannot be written") -> Iterator[None]:
    """Turn what the disk refuses into a DataError that names the path; a full disk is the user's to mend."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise DataError(
            what,
            where=str(path),
            why=str(error),
            fix="free some space, check permissions, or choose another place for it",
        ) from error


def _fill(part: Path, fill: Mapping[str, Content] | Callable[[Path], object]) -> None:
    if callable(fill):
        fill(part)
        return
    for name, content in fill.items():
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        put_file(part / name, content, sync=False)


def _settle(folder: Path) -> None:
    """Sync a folder with all that is in it, and let the umask decide who may read what was made in it."""
    example = folder / f"{TEMPORARY}mode"
    example.touch()
    mode = example.stat().st_mode
    example.unlink()
    for where, _, names in os.walk(folder, topdown=False):
        for name in names:
            file = Path(where, name)
            if file.stat().st_nlink == 1:  # a second name's owner has decided already
                _set_mode(file, mode)
            sync_path(file)
        sync_path(Path(where))


def _set_mode(path: Path, mode: int) -> None:
    if path.stat().st_mode != mode:
        path.chmod(mode & 0o777)


def _move(part: Path, path: Path, existing: str) -> None:
    if existing == "replace" and path.exists():
        old = temporary(path)
        path.rename(old)
        part.rename(path)
        shutil.rmtree(old)
    else:
        try:
            if _is_empty(path):
                path.rmdir()
            part.rename(path)
        except OSError:
            if not path.is_dir():
                raise
            if existing != "keep":
                raise _exists(path) from None
    sync_path(path.parent)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _exists(path: Path) -> UsageError:
    return UsageError(f"{path} exists already", fix="name another output, or remove it")

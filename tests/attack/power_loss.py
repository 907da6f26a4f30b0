"""A recorded trace of file operations, played again up to a moment at which the power fails.

What survives is a model: of a file the bytes that were synced, of a folder the names that were, or more.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

O_TRUNC = 0o1000
UNSEEN = re.compile(
    r"\.tmp\w{6}"
)  # safetensors' own name; it renames by a system call that nothing can count


class Step(NamedTuple):
    """One operation. path, second: relative to the folder.   number: an offset, a size or flags."""

    kind: str
    path: str
    second: str
    number: int
    data: bytes


@dataclass
class File:
    """data: what readers see.   synced: what is on the disk for certain; None before the first sync."""

    data: bytes = b""
    synced: bytes | None = None


@dataclass
class Folder:
    """names: what readers see.   synced: what is on the disk for certain."""

    names: dict[str, File | Folder] = field(default_factory=dict)
    synced: dict[str, File | Folder] = field(default_factory=dict)


def read_trace(record: Path, root: Path) -> list[Step]:
    """The operations of a record, in order."""
    return list(_with_unseen_renames(list(_read(record.read_bytes(), root))))


def _read(rest: bytes, root: Path) -> Iterator[Step]:
    while rest:
        line, _, rest = rest.partition(b"\n")
        _, kind, path, second, number, size = line.decode().split("\t")
        yield Step(kind, _inside(root, path), _inside(root, second), int(number), rest[: int(size)])
        rest = rest[int(size) :]


def _inside(root: Path, path: str) -> str:
    return str(PurePosixPath(path).relative_to(root)) if path else ""


def _with_unseen_renames(steps: list[Step]) -> Iterator[Step]:
    target, source = "", ""
    for step in steps:
        if source and step.path != source:
            yield Step("rename", source, target, 0, b"")
            source = ""
        yield step
        if step.kind == "open" and UNSEEN.fullmatch(PurePosixPath(step.path).name):
            source = step.path
        elif step.kind == "open":
            target = step.path


def play(steps: list[Step]) -> Iterator[Folder]:
    """The folder after 0, 1, 2, ... operations; it is the same object, and changes."""
    root = Folder()
    yield root
    for step in steps:
        _apply(root, step)
        yield root


def _apply(root: Folder, step: Step) -> None:
    folder, name = _place(root, step.path)
    if step.kind == "mkdir":
        folder.names[name] = Folder()
    elif step.kind == "open":
        file = folder.names.setdefault(name, File())
        if isinstance(file, File) and step.number & O_TRUNC:
            file.data = b""
    elif step.kind in ("rename", "link"):
        into, new = _place(root, step.second)
        into.names[new] = folder.names[name]
        if step.kind == "rename":
            del folder.names[name]
    elif step.kind in ("unlink", "rmdir"):
        del folder.names[name]
    elif step.kind != "chmod":
        _change(root if step.path == "." else folder.names[name], step)


def _change(one: File | Folder, step: Step) -> None:
    if isinstance(one, Folder):
        one.synced = dict(one.names)
    elif step.kind == "sync":
        one.synced = one.data
    elif step.kind == "truncate":
        one.data = one.data[: step.number].ljust(step.number, b"\0")
    else:
        end = step.number + len(step.data)
        one.data = one.data[: step.number].ljust(step.number, b"\0") + step.data + one.data[end:]


def _place(root: Folder, path: str) -> tuple[Folder, str]:
    *above, name = PurePosixPath(path).parts or (".",)
    folder = root
    for part in above:
        below = folder.names[part]
        assert isinstance(below, Folder), path
        folder = below
    return folder, name


Keep = Callable[[File | Folder], "bytes | dict[str, File | Folder]"]
"""What of a file's bytes, or of a folder's names, the disk holds after the power failed."""


def only_synced(one: File | Folder) -> bytes | dict[str, File | Folder]:
    """The least that a disk may keep: what was synced."""
    if isinstance(one, File):
        return one.synced or b""
    return one.synced


def names_without_data(one: File | Folder) -> bytes | dict[str, File | Folder]:
    """Every name, and zeros in place of bytes that were not synced, as journals of names alone leave them."""
    if isinstance(one, Folder):
        return one.names
    return (one.synced or b"")[: len(one.data)].ljust(len(one.data), b"\0")


def any_part(chance: random.Random) -> Keep:
    """Of every name and every file's bytes that were not synced, either is as likely as not."""

    def keep(one: File | Folder) -> bytes | dict[str, File | Folder]:
        if isinstance(one, File):
            return (
                chance.choice([one.synced or b"", one.data, one.data[: len(one.data) // 2]])
                if one.synced != one.data
                else one.data
            )
        chosen = dict(one.synced)
        for name in one.names.keys() | one.synced.keys():
            if one.names.get(name) is not one.synced.get(name) and chance.random() < 0.5:
                chosen.pop(name, None)
                if name in one.names:
                    chosen[name] = one.names[name]
        return chosen

    return keep


def write_state(root: Folder, folder: Path, keep: Keep) -> None:
    """Make what is left after the power failed."""
    folder.mkdir()
    names = keep(root)
    assert isinstance(names, dict)
    for name, one in names.items():
        if isinstance(one, Folder):
            write_state(one, folder / name, keep)
        else:
            data = keep(one)
            assert isinstance(data, bytes)
            (folder / name).write_bytes(data)

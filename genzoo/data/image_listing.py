"""Find the pictures of a folder: root/class_name/*.jpg|jpeg|png|webp, or directly in root (no classes)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from genzoo.core.errors import DataError, did_you_mean
from genzoo.data.image_decode import EXTENSIONS, shown

LAYOUT = "root/cat/1.jpg, root/dog/2.png, ... (a folder a class); or root/1.jpg, root/2.png, ... (no classes)"


class Names(Sequence[str]):
    """Many strings in two arrays. A list of a million of them would be copied into every loader worker."""

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        """The string at an index, or a list of those of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return os.fsdecode(self._bytes[self._ends[index] : self._ends[index + 1]].tobytes())


@dataclass(frozen=True)
class Listing:
    """files: relative to root.   labels: (n,) int32, or None without classes.   ignored: other files."""

    root: Path
    files: Names
    labels: np.ndarray | None
    class_names: list[str] | None
    ignored: list[str]


def list_images(
    root: str | Path, *, class_names: Sequence[str] | None = None, follow_links: bool = False
) -> Listing:
    """List a folder of pictures in natural order ("2" before "10").

    class_names: the classes to use, in the order of their labels; all of them, sorted, when None.
    """
    folder = resolve_root(root)
    ignored: list[str] = []
    here, folders = scan_folder(folder, folder, ignored, follow_links)
    if here and folders:
        raise DataError(
            "the data folder has both pictures and folders, so it is not clear whether there are classes",
            where=shown(folder),
            why=f"for example {shown(here[0])} and {shown(folders[0])}/",
            fix=f"the layout is {LAYOUT}",
        )
    if not here and not folders:
        raise DataError(
            "the data folder holds no pictures", where=shown(folder), fix=f"the layout is {LAYOUT}"
        )
    if here:
        if class_names:
            raise DataError("class_names was given, but the folder has no class folders", where=shown(folder))
        return Listing(folder, Names(here), None, None, ignored)
    return _list_classes(folder, choose_classes(folders, class_names, folder), ignored, follow_links)


def only_labels(listing: Listing, labels: Sequence[int] | None) -> Listing:
    """The pictures with one of these labels, which they keep; None means all."""
    if labels is None or listing.labels is None:
        return listing
    rows = np.flatnonzero(np.isin(listing.labels, labels))
    files = Names([listing.files[int(row)] for row in rows])
    return replace(listing, files=files, labels=listing.labels[rows])


def _list_classes(folder: Path, classes: list[str], ignored: list[str], follow_links: bool) -> Listing:
    files: list[str] = []
    counts: list[int] = []
    for name in classes:
        found = list(_walk(folder / name, folder, ignored, follow_links, frozenset()))
        if not found:
            raise DataError(
                f"the class folder {shown(name)!r} holds no pictures",
                where=shown(folder),
                fix=f"fill it, remove it, or start its name with a dot; the layout is {LAYOUT}",
            )
        files += found
        counts.append(len(found))
    return Listing(
        folder, Names(files), np.repeat(np.arange(len(classes), dtype=np.int32), counts), classes, ignored
    )


def resolve_root(root: str | Path, layout: str = LAYOUT) -> Path:
    """The data folder itself, links followed. Raises DataError when there is none."""
    try:
        folder = Path(root).expanduser().resolve(strict=True)
        is_folder = folder.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            "the data folder does not exist",
            where=shown(str(root)),
            fix=f"set data.root; the layout is {layout}",
        ) from error
    if not is_folder:
        raise DataError("data.root is not a folder", where=shown(folder), fix=f"the layout is {layout}")
    return folder


def choose_classes(found: list[str], wanted: Sequence[str] | None, folder: Path) -> list[str]:
    """The class folders to use, in the order of their labels: those wanted, or all that were found."""
    if wanted is None:
        return found
    for name in wanted:
        if name not in found:
            hint = did_you_mean(name, found) or f"there are {len(found)}, such as {shown(found[0])!r}"
            raise DataError(f"there is no class folder {name!r}; {hint}", where=shown(folder))
    if len(set(wanted)) < len(wanted):
        raise DataError("class_names holds a name twice", where=shown(folder))
    return list(wanted)


def _walk(
    folder: Path, root: Path, ignored: list[str], follow_links: bool, parents: frozenset[Path]
) -> Iterator[str]:
    """Pictures under a class folder, at any depth; a folder that links to its parent is visited once."""
    here = folder.resolve()
    if here in parents:
        return
    files, folders = scan_folder(folder, root, ignored, follow_links)
    yield from files
    for name in folders:
        yield from _walk(folder / name, root, ignored, follow_links, parents | {here})


def scan_folder(
    folder: Path,
    root: Path,
    ignored: list[str],
    follow_links: bool,
    extensions: tuple[str, ...] = EXTENSIONS,
) -> tuple[list[str], list[str]]:
    """Files with these extensions (relative to root) and sub-folders (names) of one folder.

    Hidden entries do not count; all other files are added to `ignored`.
    """
    files, folders = [], []
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError("this folder cannot be read", where=shown(folder), why=str(error)) from error
    prefix = "" if folder == root else f"{folder.relative_to(root)}{os.sep}"
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if entry.is_symlink() and not follow_links:
                raise DataError(
                    "this folder is a link, and links to folders are not followed",
                    where=shown(entry.path),
                    fix="data.follow_links=true follows them",
                )
            folders.append(entry.name)
        elif entry.name.lower().endswith(extensions):
            files.append(prefix + entry.name)
        else:
            ignored.append(prefix + entry.name)
    return sorted(files, key=natural), sorted(folders, key=natural)


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that reads runs of digits as numbers; the name itself decides between equals."""
    parts = re.split(r"([0-9]+)", name.casefold())
    # Python refuses to read numbers of thousands of digits, but a file name has at most a few hundred
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name

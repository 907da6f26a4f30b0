"""Find the pictures of a folder: root/class_name/*.jpg|jpeg|png|webp, or directly in root (no classes)."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from genzoo.core.errors import DataError, did_you_mean
from genzoo.core.reading import shown
from genzoo.data.class_lists import label_of
from genzoo.data.image_decode import EXTENSIONS
from genzoo.data.natural_order import class_order, naturally_sorted
from genzoo.data.own_outputs import SAMPLES, holds_only_runs, is_overview

logger = logging.getLogger(__name__)

LAYOUT = "root/cat/1.jpg, root/dog/2.png, ... (a folder a class); or root/1.jpg, root/2.png, ... (no classes)"


# under these names genzoo writes overviews; only such files are opened while a million others are listed
OVERVIEW_NAMES = ("grid", "preview", "control_edges", "concepts")


class Names(Sequence[str]):
    """Many strings in two arrays. A list of a million of them would be copied into every loader worker."""

    def __init__(self, names: Sequence[str]) -> None:
        joined = np.frombuffer(os.fsencode("\0".join(names)), np.uint8)
        between = np.flatnonzero(joined == 0)
        if len(names) and len(between) == len(names) - 1:  # no name has the byte itself, as no file can
            ends = np.append(between, len(joined)) - np.arange(len(names))
            self._bytes, self._ends = joined[joined != 0], np.insert(ends, 0, 0)
            return
        encoded = [os.fsencode(name) for name in names]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)])

    @classmethod
    def of(cls, data: np.ndarray, ends: np.ndarray) -> Names:
        """Those whose bytes lie one after another in `data`, between neighbours of `ends`."""
        names = cls([])
        names._bytes, names._ends = data, ends
        return names

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


@dataclass
class LeftOut:
    """What lies among the data and is none of them, relative to root; hidden entries are not even counted.

    other: files in a format that is not read.   ours: overviews and runs of genzoo.
    """

    other: list[str] = field(default_factory=list)
    ours: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [*self.other, *self.ours]


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

    class_names: the classes to use, in the order of their labels; all of them, in `class_order`, when None.
    """
    folder = resolve_root(root)
    left = LeftOut()
    here, folders = scan_folder(folder, folder, left, follow_links)
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
        return Listing(folder, Names(here), None, None, left.names)
    return _list_classes(folder, choose_classes(folders, class_names, folder), left, follow_links)


def only_labels(listing: Listing, labels: Sequence[int] | None) -> Listing:
    """The pictures with one of these labels, which they keep; None means all."""
    if labels is None or listing.labels is None:
        return listing
    rows = np.flatnonzero(np.isin(listing.labels, labels))
    files = Names([listing.files[int(row)] for row in rows])
    return replace(listing, files=files, labels=listing.labels[rows])


def _list_classes(folder: Path, classes: list[str], left: LeftOut, follow_links: bool) -> Listing:
    files: list[str] = []
    counts: list[int] = []
    for name in classes:
        found = list(walk_images(folder / name, folder, left, follow_links))
        if not found:
            raise DataError(
                f"the class folder {shown(name)!r} holds no pictures",
                where=shown(folder),
                fix=f"fill it, remove it, or start its name with a dot; the layout is {LAYOUT}",
            )
        files += found
        counts.append(len(found))
    sampled = [name for name in classes if (folder / name / SAMPLES).is_file()]
    if 0 < len(sampled) < len(classes):
        logger.warning("%s: samples that genzoo made are among the classes: %s", folder, sampled[:5])
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
    return Listing(folder, Names(files), labels, classes, left.names)


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
        return sorted(found, key=class_order)
    chosen = []
    for name in wanted:
        at = label_of(name, found)
        if at is None:
            hint = did_you_mean(name, found) or f"there are {len(found)}, such as {shown(found[0])!r}"
            raise DataError(f"there is no class folder {name!r}; {hint}", where=shown(folder))
        chosen.append(found[at])
    if len(set(chosen)) < len(chosen):
        raise DataError("class_names holds a name twice", where=shown(folder))
    return chosen


def walk_images(
    folder: Path, root: Path, left: LeftOut, follow_links: bool, parents: frozenset[Path] = frozenset()
) -> Iterator[str]:
    """Pictures below a folder, at any depth, relative to root; a link to a parent is not followed again."""
    here = folder.resolve()
    if here in parents:
        return
    files, folders = scan_folder(folder, root, left, follow_links)
    yield from files
    for name in folders:
        yield from walk_images(folder / name, root, left, follow_links, parents | {here})


def scan_folder(
    folder: Path,
    root: Path,
    left: LeftOut,
    follow_links: bool,
    extensions: tuple[str, ...] = EXTENSIONS,
) -> tuple[list[str], list[str]]:
    """Files with these extensions (relative to root) and sub-folders (names) of one folder.

    Hidden entries and what macOS packs beside files do not count; what else is no data is added to `left`.
    """
    files, folders = [], []
    try:
        with os.scandir(folder) as found:
            # asked for each of a million files: a function of its own would cost as much as the listing
            entries = [entry for entry in found if entry.name[0] != "." and entry.name != "__MACOSX"]
    except OSError as error:
        raise DataError("this folder cannot be read", where=shown(folder), why=str(error)) from error
    prefix = "" if folder == root else f"{folder.relative_to(root)}{os.sep}"
    for entry in entries:
        name = entry.name
        if _is_folder(entry):
            if entry.is_symlink() and not follow_links:
                raise DataError(
                    "this folder is a link, and links to folders are not followed",
                    where=shown(entry.path),
                    fix="data.follow_links=true follows them",
                )
            if holds_only_runs(Path(entry.path), extensions):
                left.ours.append(f"{prefix}{name}{os.sep}")
            else:
                folders.append(name)
        elif not name.lower().endswith(extensions):
            left.other.append(prefix + name)
        elif name.startswith(OVERVIEW_NAMES) and is_overview(Path(entry.path), _Beside(entries)):
            left.ours.append(prefix + name)
        else:
            files.append(name)
    return [prefix + name for name in naturally_sorted(files)], naturally_sorted(folders)


class _Beside(Collection[str]):
    """The names of a folder's entries, put together when one is looked for."""

    def __init__(self, entries: Sequence[os.DirEntry[str]]) -> None:
        self._entries = entries

    def __contains__(self, name: object) -> bool:
        return any(entry.name == name for entry in self._entries)

    def __iter__(self) -> Iterator[str]:
        return (entry.name for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it will say so
        return False

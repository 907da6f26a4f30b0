"""Find the clips of a folder: video files, and folders of pictures, each of which is one clip.

A folder that holds pictures is a clip whose frames are its pictures in natural order ("2" before "10"). Where
pictures lie beside video files they are taken for thumbnails and left out. Clips below root/class_name/ have
that class, at any depth; clips that lie directly in root have none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genzoo.core.errors import DataError, did_you_mean
from genzoo.core.reading import shown
from genzoo.data.class_lists import ClassList, kept_labels
from genzoo.data.image_decode import EXTENSIONS
from genzoo.data.image_listing import LeftOut, Names, choose_classes, resolve_root, scan_folder
from genzoo.data.text_files import read_lines
from genzoo.data.video_decode import VIDEO_EXTENSIONS

LAYOUT = (
    "root/class/1.mp4 or root/class/clip/001.jpg, ... (a folder a class); "
    "or root/1.mp4, root/clip/001.jpg, ... (no classes)"
)


@dataclass(frozen=True)
class VideoListing:
    """clips: files or folders, relative to root.   labels: (n,) int32, or None without classes.

    frames: all pictures of all clips that are folders, relative to root; those of clip i are
    frames[ends[i]:ends[i + 1]], none for a file.   ignored: other files.
    """

    root: Path
    clips: Names
    frames: Names
    ends: np.ndarray
    labels: np.ndarray | None
    class_names: list[str] | None
    ignored: list[str]

    def pictures(self, index: int) -> list[str]:
        """The frames of a clip that is a folder, relative to root; [] for a file."""
        found: list[str] = self.frames[int(self.ends[index]) : int(self.ends[index + 1])]
        return found


Clip = tuple[str, list[str]]
"""A file or folder, relative to root, and its pictures."""


def list_videos(
    root: str | Path,
    *,
    class_folders: bool | None = None,
    class_names: Sequence[str] | None = None,
    include_classes: ClassList | None = None,
    exclude_classes: ClassList | None = None,
    split_file: str | Path | None = None,
    follow_links: bool = False,
) -> VideoListing:
    """List the clips of a folder in natural order.

    class_folders: whether the first level of folders are classes; None looks: they are, unless clips lie
    directly in root.   class_names: the classes to use, in the order of their labels.   include_classes,
    exclude_classes: show these only, or leave these out; labels stay those of all.   split_file: a text file
    that names the clips to use, one a line, relative to root; what follows a blank is left out, so the lists
    of UCF-101 serve as they are.
    """
    folder = resolve_root(root, LAYOUT)
    left = LeftOut()
    here = list(clips_of(folder, folder, left, follow_links, deep=False))
    _, folders = scan_folder(folder, folder, LeftOut(), follow_links, EXTENSIONS + VIDEO_EXTENSIONS)
    below = {name: list(clips_of(folder / name, folder, left, follow_links)) for name in folders}
    below = {name: clips for name, clips in below.items() if clips}
    if not here and not below:
        raise DataError(
            "the data folder holds no videos and no folders of pictures",
            where=shown(folder),
            fix=f"the layout is {LAYOUT}",
        )
    if _has_classes(folder, here, below, class_folders, class_names):
        names = choose_classes(list(below), class_names, folder)
        kept = kept_labels(names, include_classes, exclude_classes)
        labels = range(len(names)) if kept is None else kept
        clips = [(label, clip) for label in labels for clip in below[names[label]]]
        return _listing(folder, _split(clips, split_file, folder), names, left)
    kept_labels(None, include_classes, exclude_classes)  # without classes there is nothing to choose
    if class_names:
        raise DataError("class_names was given, but the folder has no class folders", where=shown(folder))
    clips = [(0, clip) for clip in [*here, *(clip for found in below.values() for clip in found)]]
    return _listing(folder, _split(clips, split_file, folder), None, left)


def list_all_clips(root: str | Path) -> tuple[VideoListing, LeftOut]:
    """Every clip below a folder, at any depth and in natural order, links followed, whatever its class."""
    folder, left = resolve_root(root, LAYOUT), LeftOut()
    clips = list(clips_of(folder, folder, left, True))
    if not clips:
        raise DataError(f"there is no video and no folder of frames below {shown(folder)}")
    return _listing(folder, [(0, clip) for clip in clips], None, left), left


def _has_classes(
    folder: Path,
    here: list[Clip],
    below: dict[str, list[Clip]],
    class_folders: bool | None,
    class_names: Sequence[str] | None,
) -> bool:
    # root/clip/001.jpg: such a folder is a clip itself
    direct = [*here, *(clip for name, found in below.items() for clip in found if clip[0] == name)]
    nested = [clip for name, found in below.items() for clip in found if clip[0] != name]
    if class_folders is False or (class_folders is None and not nested):
        return False
    if direct:
        raise DataError(
            "some clips lie in class folders and others do not, so it is not clear whether there are classes",
            where=shown(folder),
            why=f"for example {shown(direct[0][0])}" + (f" and {shown(nested[0][0])}" if nested else ""),
            fix="data.class_folders=false uses all of them without classes",
        )
    return True


def clips_of(
    folder: Path,
    root: Path,
    left: LeftOut,
    follow_links: bool,
    parents: frozenset[Path] = frozenset(),
    deep: bool = True,
) -> Iterator[Clip]:
    """The clips in a folder and, unless it is the root, below; a folder linking to its parent counts once."""
    here = folder.resolve()
    if here in parents:
        return
    found, folders = scan_folder(folder, root, left, follow_links, EXTENSIONS + VIDEO_EXTENSIONS)
    videos = [name for name in found if name.lower().endswith(VIDEO_EXTENSIONS)]
    pictures = [name for name in found if not name.lower().endswith(VIDEO_EXTENSIONS)]
    if videos:
        left.other += pictures
        yield from ((name, []) for name in videos)
    elif pictures and folders:
        raise DataError(
            "this folder has both pictures and folders, so it is not clear what is a clip",
            where=shown(folder),
            why=f"for example {shown(pictures[0])} and {shown(folders[0])}/",
            fix=f"the layout is {LAYOUT}",
        )
    elif pictures:
        yield str(folder.relative_to(root)), pictures
    for name in folders if deep else ():
        yield from clips_of(folder / name, root, left, follow_links, parents | {here})


def _split(
    clips: list[tuple[int, Clip]], split_file: str | Path | None, folder: Path
) -> list[tuple[int, Clip]]:
    """The clips that a list names; all of them without one."""
    if split_file is None:
        return clips
    path = Path(split_file).expanduser()
    lines = [line for line in read_lines(path, "data.split_file") if line]
    known = {clip[0].replace(os.sep, "/") for _, clip in clips}
    wanted = {line if line in known else line.rpartition(" ")[0] or line for line in lines}
    missing = sorted(wanted - known)
    if missing or not wanted:
        raise DataError(
            f"{len(missing)} of the {len(wanted)} clips in the list are not in the data folder",
            where=shown(path),
            why=f"for example {shown(missing[0])}; {did_you_mean(missing[0], known)}" if missing else None,
            fix=f"each line is a path relative to {shown(folder)}",
        )
    return [(label, clip) for label, clip in clips if clip[0].replace(os.sep, "/") in wanted]


def _listing(
    folder: Path, clips: list[tuple[int, Clip]], class_names: list[str] | None, left: LeftOut
) -> VideoListing:
    counts = [len(pictures) for _, (_, pictures) in clips]
    return VideoListing(
        folder,
        Names([name for _, (name, _) in clips]),
        Names([picture for _, (_, pictures) in clips for picture in pictures]),
        np.cumsum([0, *counts]),
        None if class_names is None else np.array([label for label, _ in clips], np.int32),
        class_names,
        left.names,
    )

"""What genzoo itself writes beside data: overviews and run folders, which are no pictures to learn or judge.

An overview says so in its file, or is the grid beside a samples.json; a run folder is known by its small
files. A name alone says nothing: somebody's own grid.png is a picture.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from genzoo.pictures.grid import OVERVIEW

SAMPLES = "samples.json"
GRIDS = ("grid.png", "grid.gif", "grid.mp4")
_EDGE = 4096  # bytes; the mark stands before the pixels, in films after them
_RECIPE, _STARTED, _LOCK = "recipe.yaml", ("status.json", "env.json", "checkpoints"), ".lock"
_HOLDER = ".lock-holder"


def is_overview(path: Path, beside: Collection[str] = ()) -> bool:
    """Whether a file is a grid, sheet or preview of many pictures.   beside: the names in its folder."""
    if path.name in GRIDS and SAMPLES in beside:
        return True
    if not path.name.lower().endswith((".png", ".gif", ".mp4")) or not path.is_file():  # pipes never end
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_EDGE)
            file.seek(max(0, path.stat().st_size - _EDGE))
            return OVERVIEW.encode() in head + file.read(_EDGE)
    except OSError:
        return False


def is_run(folder: Path) -> bool:
    """Whether a folder is a run, be it one that has only just begun."""
    try:
        begun = (folder / _RECIPE).is_file() or (folder / _LOCK).is_file()
        names = set(os.listdir(folder)) if begun else set()
    except OSError:
        return False
    if _RECIPE in names:
        return any(name in names for name in _STARTED)
    return {_LOCK} <= names <= {_LOCK, _HOLDER}


def holds_only_runs(folder: Path, media: tuple[str, ...]) -> bool:
    """Whether a folder is a run, or has runs below it and no file with one of the suffixes `media`."""
    if is_run(folder):
        return True
    found = False
    try:
        for entry in os.scandir(folder):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if not holds_only_runs(Path(entry.path), media):
                    return False
                found = True
            elif entry.name.lower().endswith(media):
                return False
    except OSError:  # whoever lists it will say so
        return False
    return found

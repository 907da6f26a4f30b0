"""The run at a place, whatever kind of place it is: every option that takes a run opens it here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genzoo.api.runs.open_file import open_file
from genzoo.api.runs.opened_file import OpenedFile
from genzoo.api.runs.shipped_run import MODEL_FILE, open_shipped
from genzoo.api.runs.stored import StoredRun, open_stored
from genzoo.assets.shipped import is_shipped, shipped_at
from genzoo.core.errors import UsageError
from genzoo.core.exported import COMPONENT
from genzoo.pretrained.hub_runs import here, is_hub_run, name_of

INDEX = "model_index.json"  # of a base in diffusers' layout


def open_run(place: str | Path, changes: Sequence[str] = ()) -> StoredRun | OpenedFile:
    """The run in a folder, on a hub, in a file of SOURCES, or that ships, by name or by its folder.

    changes: of the data of a run in a folder, see `StoredRun`. Raises UsageError when there is none.
    """
    name = place if is_shipped(place) else shipped_at(place)
    if name is not None:
        return _unchanged(open_shipped(name), changes)
    path = here(place)
    if _is_trained(path):
        return open_stored(path, changes)
    alone = path / MODEL_FILE  # of what was pushed to a hub, beside its recipe
    opened = open_file(alone if alone.is_file() else path)
    if opened is None:
        return open_stored(path, changes)
    if is_hub_run(place):  # what is made of it goes here, not into the hub's cache
        opened.folder = Path("runs", name_of(place))
    return _unchanged(opened, changes)


def _is_trained(path: Path) -> bool:
    """Whether training left a folder, though it may have no checkpoint yet."""
    if not (path / "recipe.yaml").is_file() or (path / COMPONENT).is_dir():
        return False
    return (path / "checkpoints").is_dir() or not any((path / name).is_file() for name in (MODEL_FILE, INDEX))


def _unchanged(opened: OpenedFile, changes: Sequence[str]) -> OpenedFile:
    if changes:
        raise UsageError(f"{opened.path} is a file without data of yours, so {changes[0]!r} changes nothing")
    return opened

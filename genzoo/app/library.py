"""What lies below the page's folder: runs with their state, files that can be sampled. Imports no torch.

The page names things by what this lists; a name that is not listed is refused, so that no handler ever joins
a path out of what a browser sent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import genzoo.api  # noqa: F401  (reads the cards)
from genzoo.api.recipes.plan import task_name
from genzoo.assets import asset
from genzoo.assets.shipped import SCHEME, card, shipped_names
from genzoo.core.errors import GenzooError, UsageError
from genzoo.core.reading import read_bytes
from genzoo.core.recipe import load_recipe
from genzoo.core.registry import TASKS
from genzoo.core.run_folder import RunFolder

DEEPEST, MOST = 4, 2000  # folders below the page's, and folders looked at
INSIDE_RUNS = ("checkpoints", "tensorboard", "samples", "evaluation", "best", "recipes", "clients")
POINTS = 400  # of one curve
MAX_METRICS = 256 * 1024**2


@dataclass(frozen=True)
class Run:
    """name: its path below the page's folder.   status: of status.json, "dead" without its process."""

    name: str
    path: Path
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        return str(self.status.get("state", "unknown"))

    @property
    def can_sample(self) -> bool:
        """Whether there is a checkpoint."""
        folder = self.path / "checkpoints"
        return folder.is_dir() and any(entry.name.startswith("step_") for entry in folder.iterdir())


class Library:
    """Everything below one folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()

    def runs(self) -> list[Run]:
        """All runs, the one that was written last first."""
        found = [Run(self._name(path), path, _status(path)) for path in self._folders() if is_run(path)]
        return sorted(found, key=lambda run: (str(run.status.get("updated", "")), run.name), reverse=True)

    def run(self, name: object) -> Run:
        """The run of a name. Raises UsageError for one that is not listed."""
        return self._named(name, self.runs(), "run")

    def sources(self) -> dict[str, str]:
        """What can be sampled: its name -> what it is called on the page."""
        shipped = {f"{SCHEME}{name}": about for name, about in _shipped().items()}
        runs = {run.name: run.name for run in self.runs() if run.can_sample}
        files = {self._name(path): self._name(path) for path in self._files()}
        return runs | files | shipped

    def source(self, name: object) -> str:
        """A whole path, or a shipped name, of what is listed under a name. Raises UsageError."""
        if not isinstance(name, str) or name not in self.sources():
            raise UsageError(f"there is no {name!r:.80} to sample", fix="choose one of the list")
        return name if name.startswith(SCHEME) else str(self.folder / name)

    def bases(self) -> dict[str, str]:
        """Text-to-image models that can be taught: those that ship, and folders in diffusers' layout."""
        shipped = {
            f"{SCHEME}{name}": about
            for name, about in _shipped().items()
            if _is_base(asset("weights") / name)
        }
        return shipped | {self._name(path): self._name(path) for path in self._folders() if _is_base(path)}

    def base(self, name: object) -> str:
        """As `source`, of a base."""
        if not isinstance(name, str) or name not in self.bases():
            raise UsageError(f"there is no base {name!r:.80}", fix="choose one of the list")
        return name if name.startswith(SCHEME) else str(self.folder / name)

    def concepts(self) -> dict[str, Path]:
        """Files of taught concepts by name."""
        return {self._name(path): path for path in self._files() if path.is_file()}

    def _named(self, name: object, listed: list[Run], what: str) -> Run:
        for one in listed:
            if one.name == name:
                return one
        raise UsageError(f"there is no {what} {name!r:.80}", fix="choose one of the list")

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _folders(self) -> Iterator[Path]:
        """Folders below ours; links, hidden ones, and what runs keep inside are left out."""
        for seen, (where, names, _) in enumerate(os.walk(self.folder)):
            path = Path(where)
            depth = len(path.relative_to(self.folder).parts)
            links = (name for name in names if (path / name).is_symlink())
            inside = {
                *links,
                *(INSIDE_RUNS if is_run(path) else ()),
                *(n for n in names if n.startswith(".")),
            }
            names[:] = sorted(set(names) - inside) if depth < DEEPEST else []
            if seen > MOST:
                return
            if depth:
                yield path

    def _files(self) -> Iterator[Path]:
        """Concepts, exported weights, and bases of text-to-image models."""
        for folder in (self.folder, *self._folders()):
            if _is_base(folder):
                yield folder
            elif not (folder / "unet").is_dir() and not (folder.parent / "model_index.json").is_file():
                for path in sorted(folder.glob("*.safetensors")):
                    if path.is_file() and not path.is_symlink():
                        yield path


def is_run(path: Path) -> bool:
    """Whether a training left this folder, or is beginning to."""
    return (path / "recipe.yaml").is_file() and (path / "status.json").is_file()


def curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The numbers that a run logged, by name: (step, value), at most `POINTS` of each."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in _lines(path / "metrics.jsonl"):
        step = line.get("step")
        for name, value in line.items():
            if (
                isinstance(step, int)
                and name != "step"
                and isinstance(value, (int, float))
                and value == value
            ):
                found.setdefault(name, []).append((step, float(value)))
    return {name: _thinned(points) for name, points in found.items()}


def previews(path: Path) -> list[tuple[int, Path]]:
    """Overview pictures that a training made, (step, file), oldest first."""
    found = []
    for folder in (path / "samples").glob("step_*"):
        grid = next((folder / name for name in ("grid.png", "grid.gif") if (folder / name).is_file()), None)
        step = folder.name.removeprefix("step_")
        if grid is not None and step.isdecimal() and not grid.is_symlink():
            found.append((int(step), grid))
    return sorted(found)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = read_bytes(path, max_bytes=MAX_METRICS).decode("utf-8", "replace")
    except GenzooError:  # not there yet
        return
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # it is being written
            continue
        if isinstance(record, dict):
            yield record


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Every n-th point, and the last."""
    every = -(-len(points) // POINTS)
    return points if every <= 1 else [*points[:-1:every], points[-1]]


def _status(path: Path) -> dict[str, Any]:
    try:
        return RunFolder(path).status()
    except GenzooError:
        return {"state": "unreadable"}


@cache
def _shipped() -> dict[str, str]:
    """Shipped weights that make pictures: the name, and what is said of it."""
    names = [name for name in shipped_names() if _generates(asset("weights") / name)]
    return {name: f"{card(name).about} ({name}, comes with genzoo)" for name in names}


def _generates(folder: Path) -> bool:
    return "generates" in TASKS.entry(task_name(load_recipe(folder / "recipe.yaml"))).port


def _is_base(path: Path) -> bool:
    return (path / "model_index.json").is_file() and (path / "unet").is_dir()

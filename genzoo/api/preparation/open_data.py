"""Data by whatever name they have: a folder of pictures or clips, a table of captions, or a recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.api.recipes.build import build_dataset
from genzoo.api.recipes.check import KINDS, check_node
from genzoo.api.recipes.listing import require_data
from genzoo.api.recipes.plan import plan_of
from genzoo.core.contracts.datasets import pictures_of
from genzoo.core.errors import RecipeError, UsageError
from genzoo.core.reading import shown
from genzoo.core.recipe import load_recipe
from genzoo.core.recipe_text import parse_value
from genzoo.core.recipe_tree import plain
from genzoo.core.registry import DATASETS
from genzoo.data.captioned import TABLES, Captioned, all_captioned, table_in
from genzoo.data.captioned_files import CaptionedFiles
from genzoo.data.image_decode import EXTENSIONS
from genzoo.data.video_decode import VIDEO_EXTENSIONS

if TYPE_CHECKING:
    from genzoo.core.types import Dataset

SIDE = 64  # of the pictures that are made of files only to be looked at


@dataclass(frozen=True)
class OpenedData:
    """name: for people.   root: what names of files begin with.   hidden: files that do not count.

    captions: by file, where there are captions beside the pictures.   missing: files that a table lists and
    that are not there.
    """

    name: str
    dataset: Dataset
    root: str = ""
    hidden: int = 0
    captions: Mapping[str, Captioned] | None = None
    missing: list[str] = field(default_factory=list)

    def short(self, text: str) -> str:
        """A file's name without the folder that all of them lie in."""
        return text.replace(self.root, "") if self.root else text


def open_data(source: str, settings: Sequence[str] = ()) -> OpenedData:
    """A folder, a table of captions, or a recipe.

    settings: KEY=VALUE of a folder's data set, such as name=video_folder; of a recipe, dotted ones.
    Raises UsageError, RecipeError, DataError.
    """
    path = Path(source).expanduser()
    if path.is_dir() and not (path / "recipe.yaml").is_file():
        return _open_folder(path, settings)
    if path.is_file() and path.suffix.lower() in TABLES:
        if settings:
            raise UsageError(f"a table takes no settings, such as {settings[0]}", fix="leave them out")
        return _open_table(path)
    require_data(source)
    return _open_recipe(str(path / "recipe.yaml") if path.is_dir() else source, settings)


def _open_recipe(source: str, overrides: Sequence[str]) -> OpenedData:
    recipe = load_recipe(source, list(overrides))
    unused = {key.partition(".")[0] for key in recipe.missing()} - {"data"}
    plan = plan_of(recipe, but=sorted(unused))
    dataset, root = pictures_of(build_dataset(plan)), plan.data.arguments.get("root")
    folder = Path(str(root)).expanduser().resolve() if isinstance(root, str) else None
    if folder is None or not folder.is_dir():
        return OpenedData(f"data of {source}", dataset)
    return OpenedData(f"data of {source}", dataset, f"{shown(folder)}{os.sep}", hidden_files(folder))


def _open_folder(path: Path, settings: Sequence[str]) -> OpenedData:
    given = _typed(settings)
    section: dict[str, Any] = {
        "name": "video_folder" if holds_videos(path) else "image_folder",
        "image_size": SIDE,
    }
    section |= {"root": str(path), **given}
    if section["name"] == "video_folder":
        section = {"num_frames": 1, **section}  # so that no clip is too short to be looked at
    problems = list(check_node("data", section, KINDS["data"]))
    if problems:
        raise RecipeError("\n".join(map(str, problems)))
    name = section.pop("name")
    dataset: Dataset = pictures_of(DATASETS.get(name)(**section))
    root, captions, missing = path.resolve(), None, []
    if name == "image_folder" and has_captions(path):
        captions = {_relative(one.path, root): one for one in all_captioned(path)}
        missing = [
            f"{name}: listed, and not there" for name, one in captions.items() if not one.path.exists()
        ]
    return OpenedData(str(path), dataset, f"{shown(root)}{os.sep}", hidden_files(root), captions, missing)


def _typed(settings: Sequence[str]) -> dict[str, Any]:
    given = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{text[:80]!r} is not of the form key=value", fix="for example image_size=64")
        given[key] = plain(parse_value(value, key))
    return given


def _open_table(path: Path) -> OpenedData:
    rows, root = all_captioned(path), path.resolve().parent
    return OpenedData(str(path), CaptionedFiles(rows, image_size=SIDE), f"{shown(root)}{os.sep}")


def has_captions(folder: Path) -> bool:
    """Whether pictures of a folder have captions: a table, a list, or a text of the same name."""
    if table_in(folder) is not None or (folder / "caption.txt").is_file():
        return True
    for place, _, files in os.walk(folder):
        texts = {name.rpartition(".")[0] for name in files if name.lower().endswith(".txt")}
        if any(name.lower().endswith(EXTENSIONS) and name.rpartition(".")[0] in texts for name in files):
            return True
        if Path(place) != folder:  # the folder itself, and the first below it, say enough
            return False
    return False


def holds_videos(folder: Path) -> bool:
    """Whether there are video files in a folder or below it, and no pictures before the first of them."""
    for _, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = [name.lower() for name in files if not name.startswith(".")]
        if any(name.endswith(VIDEO_EXTENSIONS) for name in names):
            return True
        if any(name.endswith(EXTENSIONS) for name in names):
            return False
    return False


def hidden_files(folder: Path) -> int:
    """How many files below a folder do not count because they, or a folder above them, are hidden."""
    count = 0
    for place, _, files in os.walk(folder):
        parts = Path(place).relative_to(folder).parts
        inside = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        count += len(files) if inside else sum(name.startswith(".") for name in files)
    return count


def _relative(path: Path, root: Path) -> str:
    resolved = Path(os.path.abspath(path))
    return shown(resolved.relative_to(root)) if resolved.is_relative_to(root) else shown(path)

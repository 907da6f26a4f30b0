"""Under which recipes a run was trained: recipe.yaml, and recipes/ once it was changed on the way.

    recipe.yaml                   the recipe of the newest checkpoint
    recipes/step_00000000.yaml    the one it began with, there as soon as there is another
    recipes/step_00000600.yaml    the one of every step after 600

A file in recipes/ whose steps have no checkpoint yet says nothing: it is written just before that checkpoint.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genzoo.core.files import disk_errors, write_file
from genzoo.core.recipe import Recipe, load_recipe

_NAME = re.compile(r"step_(\d{8,})\.yaml")


@dataclass(frozen=True)
class Phase:
    """Steps under one recipe. after: the optimizer steps that were done when it came into force."""

    after: int
    recipe: Recipe


def phases_of(folder: Path, step: int) -> list[Phase]:
    """The recipes under which the first `step` steps of a run were made, oldest first.

    Empty for a folder that keeps no recipe. Raises RecipeError for one that cannot be read.
    """
    found = _files(folder) or {0: folder / "recipe.yaml"}
    return [
        Phase(after, load_recipe(path))
        for after, path in found.items()
        if after < max(step, 1) and path.is_file()
    ]


def write_phases(folder: Path, phases: Sequence[Phase]) -> None:
    """Put recipes/ in order, before the checkpoint that makes the last of them count."""
    wanted = {phase.after: phase.recipe for phase in phases} if len(phases) > 1 else {}
    for after, path in _files(folder).items():
        if after not in wanted:  # a branch that was left
            with disk_errors(path):
                path.unlink()
    for after, recipe in wanted.items():
        write_file(folder / "recipes" / f"step_{after:08d}.yaml", recipe.to_yaml())
    if not wanted and (folder / "recipes").is_dir() and not any((folder / "recipes").iterdir()):
        shutil.rmtree(folder / "recipes", ignore_errors=True)


def _files(folder: Path) -> dict[int, Path]:
    root = folder / "recipes"
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    matches = [_NAME.fullmatch(name) for name in names]
    return {int(match[1]): root / match[0] for match in matches if match}

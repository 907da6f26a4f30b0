"""A run's weights in one file, as `export` writes them: sampled and judged without the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from genzoo.api.recipes.build import assemble, build_codec, has_auto
from genzoo.api.runs.opened_file import OpenedFile
from genzoo.api.runs.stored import ready
from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.exported import RECIPE, Exported, read_exported
from genzoo.core.recipe import recipe_from

if TYPE_CHECKING:
    from genzoo.core.recipe import Recipe
    from genzoo.core.types import Task


def open_exported(path: Path) -> ExportedFile | None:
    """The run in a file that `export` wrote in genzoo's own layout; None for any other file."""
    found = read_exported(path)
    return None if found is None else ExportedFile(path, _recipe_of(found), found)


class ExportedFile(OpenedFile):
    """An `OpenedFile` whose recipe is that of the run it came from, without the data.

    step: of the checkpoint that was exported.
    """

    def __init__(self, path: Path, recipe: Recipe, exported: Exported) -> None:
        super().__init__(path, recipe, lambda path: recipe)
        self.exported = exported
        self.step = exported.step

    def _build(self, device: str) -> Task:
        if has_auto(self.plan):
            raise WeightsError(f"{self.path} does not tell all of its model", fix="export the run again")
        task = assemble(self.plan, build_codec(self.plan))
        self.exported.load_into(task.model)
        return ready(task, device)


def _recipe_of(found: Exported) -> Recipe:
    if found.recipe is None:
        raise UsageError(
            f"{found.path} holds weights of a genzoo model and no recipe to sample it by",
            why=f"its metadata have no {RECIPE}",
            fix="export the run again, or build the model alone: genzoo.create_model(FILE)",
        )
    return recipe_from({**found.recipe, "model": dict(found.model)}, source=str(found.path))

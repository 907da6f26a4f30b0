"""A run's weights in one file, as `export` writes them: sampled and judged without the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.api.recipes.build import assemble, build_codec, has_auto
from genzoo.api.recipes.named import recipe_of
from genzoo.api.recipes.plan import codec_section
from genzoo.api.runs.carried import carried_in
from genzoo.api.runs.opened_file import OpenedFile
from genzoo.api.runs.stored import ready
from genzoo.core.checkpoint_manifest import file_digest
from genzoo.core.errors import WeightsError
from genzoo.core.exported import Exported, read_exported, read_pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genzoo.api.runs.run_data import Weights
    from genzoo.core.recipe import Recipe
    from genzoo.core.types import Task


def open_exported(path: Path) -> ExportedFile | None:
    """The run in a file, or a pipeline's folder, that `export` wrote in genzoo's layout; None for others."""
    found = read_pipeline(path) if path.is_dir() else read_exported(path)
    if found is None:
        return None
    recipe = recipe_of(found)
    places = carried_in(found.path.parent, codec_section(recipe))
    if places:
        recipe = recipe.replaced({f"codec.{key}": place for key, place in places.items()}, "beside the model")
    return ExportedFile(path, recipe, found)


class ExportedFile(OpenedFile):
    """An `OpenedFile` whose recipe is that of the run it came from, without the data.

    step: of the checkpoint that was exported.
    """

    def __init__(self, path: Path, recipe: Recipe, exported: Exported) -> None:
        super().__init__(path, recipe, lambda path: recipe)
        self.exported = exported
        self.step = exported.step

    def described(self, checkpoint: Path, weights: Weights | None = None) -> dict[str, Any]:
        """The path's name and a hash of the weights."""
        chosen, digest = self.choose(checkpoint, weights), file_digest(self.exported.path)
        return {"checkpoint": checkpoint.name, "weights": chosen, "content_sha256": digest}

    def class_names(self, checkpoint: Path) -> Sequence[str] | None:
        """The classes of the run that the weights came from."""
        return self.exported.classes

    def _build(self, device: str) -> Task:
        if has_auto(self.plan):
            raise WeightsError(f"{self.path} does not tell all of its model", fix="export the run again")
        task = assemble(self.plan, build_codec(self.plan))
        self.exported.load_into(task.model)
        return ready(task, device)

"""Weights that ship with genzoo as runs: "assets:NAME" is sampled, judged and shown as a run folder is."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.api.recipes.build import build_dataset
from genzoo.api.recipes.plan import plan_of, prompts_of
from genzoo.api.runs.exported_file import ExportedFile
from genzoo.api.runs.opened_file import OpenedFile, open_source
from genzoo.assets.shipped import SCHEME, shipped_folder
from genzoo.core.contracts.datasets import pictures_of
from genzoo.core.errors import WeightsError
from genzoo.core.exported import read_exported
from genzoo.core.recipe import load_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genzoo.api.recipes.plan import RunPlan
    from genzoo.core.recipe import Recipe
    from genzoo.core.types import Dataset

MODEL_FILE = "model.safetensors"


def shipped_recipe(place: str | Path) -> Recipe:
    """What made shipped weights, fully expanded.   place: "assets:NAME". Raises WeightsError."""
    return load_recipe(shipped_folder(place) / "recipe.yaml")


def open_shipped(place: str | Path) -> OpenedFile:
    """The run of shipped weights; what is made of it goes to runs/assets_NAME of the current folder.

    place: "assets:NAME". Raises WeightsError for a name that does not ship.
    """
    from genzoo.pretrained.shipped import shipped

    made_by, folder = shipped_recipe(place), shipped(place)
    home = Path("runs") / f"assets_{str(place).removeprefix(SCHEME)}"
    exported = read_exported(folder / MODEL_FILE)
    if exported is not None:
        recipe = made_by.replaced({"model": dict(exported.model)}, "read from the weights")
        file = ExportedFile(folder / MODEL_FILE, recipe, exported)
        return _Shipped(file, home, made_by)
    base = open_source(folder)
    if base is None:
        raise WeightsError(f"{place} holds no model", where=str(folder), fix="reinstall genzoo")
    known = {"name": made_by.name, "task.prompts": prompts_of(made_by)}
    base.recipe = base.recipe.replaced(known, "what the weights were trained on")
    return _Shipped(base, home, made_by)


class _Shipped(OpenedFile):
    """An opened file whose training data ship beside it.   made_by: the recipe that trained the weights."""

    def __init__(self, file: OpenedFile, home: Path, made_by: Recipe) -> None:
        vars(self).update(vars(file))
        self._file, self.folder, self._made_by = file, home, made_by
        self.step = file.step

    @cached_property
    def plan(self) -> RunPlan:
        """The recipe that samples the weights, and the data that trained them."""
        return replace(self._file.plan, data=plan_of(self._made_by).data)

    @cached_property
    def _pictures(self) -> Dataset:
        return pictures_of(build_dataset(plan_of(self._made_by)))

    def dataset(self) -> Dataset:
        """The data set that the weights were trained on."""
        return self._pictures

    def class_names(self, checkpoint: Path) -> Sequence[str] | None:
        """The classes by label, as the data set has them."""
        return self._file.class_names(checkpoint) or self._pictures.class_names

    def _build(self, device: str) -> Any:
        return self._file._build(device)

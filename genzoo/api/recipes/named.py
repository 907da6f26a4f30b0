"""A recipe by whatever names it: a path, the name of a shipped one, or a run. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.assets.shipped import is_shipped, shipped_folder
from genzoo.core.errors import RecipeError, UsageError
from genzoo.core.recipe import MISSING, Recipe, load_recipe, recipe_from, with_overrides
from genzoo.core.recipe_source import find_recipe, is_file
from genzoo.core.registry import DATASETS
from genzoo.core.signatures import parameters
from genzoo.pretrained.hub_runs import is_hub_run, recipe_of_hub

if TYPE_CHECKING:
    from genzoo.core.exported import Exported


def recipe_named(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by path or name, else that of a run, as `recipe_of_run` finds it. Raises RecipeError."""
    found = None if _is_recipe(name) else recipe_of_run(name, overrides)
    return load_recipe(name, overrides) if found is None else found


def recipe_of_run(name: str, overrides: Sequence[str] = ()) -> Recipe | None:
    """The recipe in a run's folder, in what `export` wrote, of "assets:NAME" or "hf://user/repo"; or None."""
    path = Path(name)
    if is_shipped(name):
        return load_recipe(shipped_folder(name) / "recipe.yaml", overrides)
    if is_hub_run(name):
        return load_recipe(recipe_of_hub(name), overrides)
    if is_file(path / "recipe.yaml"):
        return load_recipe(path / "recipe.yaml", overrides)
    if not is_file(path / "transformer" / "config.json") and path.suffix != ".safetensors":
        return None
    from genzoo.core.exported import read_exported, read_pipeline  # with them comes torch

    exported = read_exported(path) if is_file(path) else read_pipeline(path)
    return None if exported is None else with_overrides(recipe_of(exported), overrides)


def recipe_of(found: Exported) -> Recipe:
    """The recipe to sample it by. Raises UsageError when there is none."""
    from genzoo.core.exported import RECIPE

    known = known_recipe(found)
    if known is None:
        raise UsageError(
            f"{found.path} holds weights of a genzoo model and no recipe to sample it by",
            why=f"its metadata have no {RECIPE}",
            fix="export the run again, or build the model alone: genzoo.create_model(FILE)",
        )
    made = {**known, "model": dict(found.model), "data": _without_place(known.get("data"))}
    return recipe_from(made, source=str(found.path))


def known_recipe(found: Exported) -> Mapping[str, Any] | None:
    """What a file says itself, else what a recipe.yaml beside it does, without its data; or None."""
    from genzoo.core.exported import without_data

    if found.recipe is not None:
        return found.recipe
    beside = found.path.parent / "recipe.yaml"
    return without_data(load_recipe(beside).data) if is_file(beside) else None


def _without_place(data: object) -> dict[str, Any]:
    """The data's name, with `???` for what a user would have to give, such as their folder."""
    name = data.get("name") if isinstance(data, Mapping) else None
    if not isinstance(name, str) or name not in DATASETS:
        return {"name": name}
    needed = [key for key, known in parameters(DATASETS.get(name)).items() if known.required]
    return {"name": name, **dict.fromkeys(needed, MISSING)}


def _is_recipe(name: str) -> bool:
    if name.endswith(".safetensors"):
        return False
    try:
        find_recipe(name)
    except RecipeError:
        return False
    return True

"""What is wrong with a recipe and its overrides, in the words of `genzoo validate`."""

from __future__ import annotations

from typing import Any

from genzoo.api.recipes.plan import check_recipe, steps_of
from genzoo.core.errors import RecipeError
from genzoo.core.recipe import load_recipe


def validate(recipe: str, overrides: list[str], progress: Any = None) -> dict[str, Any]:
    """{"problems": lines, "missing": keys that only the user can fill in, "steps": of the training}."""
    try:
        loaded = load_recipe(recipe, overrides)
        missing = check_recipe(loaded)
    except RecipeError as error:
        return {"problems": str(error).splitlines(), "missing": [], "steps": None}
    return {"problems": [], "missing": missing, "steps": steps_of(loaded)}

"""The commands as functions, and the only place where the parts are put together.

Importing this package reads every card of names and imports no torch; each function loads on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import genzoo.api.commands
import genzoo.data
import genzoo.diffusion
import genzoo.evaluation
import genzoo.families
import genzoo.pretrained
import genzoo.training  # noqa: F401  (imported for their cards)

if TYPE_CHECKING:
    from genzoo.api.recipes.build import build_task
    from genzoo.api.recipes.listing import list_models, list_recipes
    from genzoo.api.recipes.models import count, create_model
    from genzoo.api.recipes.plan import check_recipe
    from genzoo.api.run import Run, from_pretrained, load_run, train
    from genzoo.api.sampling.samples import Samples
    from genzoo.api.training.train import dry_run
    from genzoo.core.recipe import Recipe, load_recipe, recipe_from

_WHERE = {
    "build_task": "genzoo.api.recipes.build",
    "list_models": "genzoo.api.recipes.listing",
    "list_recipes": "genzoo.api.recipes.listing",
    "count": "genzoo.api.recipes.models",
    "create_model": "genzoo.api.recipes.models",
    "Run": "genzoo.api.run",
    "from_pretrained": "genzoo.api.run",
    "load_run": "genzoo.api.run",
    "train": "genzoo.api.run",
    "Grid": "genzoo.pictures.grid",
    "Samples": "genzoo.api.sampling.samples",
    "check_recipe": "genzoo.api.recipes.plan",
    "dry_run": "genzoo.api.training.train",
    "Recipe": "genzoo.core.recipe",
    "load_recipe": "genzoo.core.recipe",
    "recipe_from": "genzoo.core.recipe",
}

__all__ = [
    "Grid",
    "Recipe",
    "Run",
    "Samples",
    "build_task",
    "check_recipe",
    "count",
    "create_model",
    "dry_run",
    "list_models",
    "list_recipes",
    "load_recipe",
    "from_pretrained",
    "load_run",
    "recipe_from",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'genzoo.api' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""The commands as functions, and the only place where the parts are put together.

Importing this package reads every card of names and imports no torch; each function loads on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import genzoo.data
import genzoo.diffusion
import genzoo.evaluation
import genzoo.families
import genzoo.pretrained  # noqa: F401  (imported for their cards)

if TYPE_CHECKING:
    from genzoo.api.build import build_task
    from genzoo.api.listing import list_models, list_recipes
    from genzoo.api.models import count, create_model
    from genzoo.api.run import Run, load_run
    from genzoo.api.samples import Grid, Samples
    from genzoo.api.schema import check_recipe
    from genzoo.api.training import dry_run, train
    from genzoo.core.recipe import Recipe, load_recipe

_WHERE = {
    "build_task": "genzoo.api.build",
    "list_models": "genzoo.api.listing",
    "list_recipes": "genzoo.api.listing",
    "count": "genzoo.api.models",
    "create_model": "genzoo.api.models",
    "Run": "genzoo.api.run",
    "load_run": "genzoo.api.run",
    "Grid": "genzoo.api.samples",
    "Samples": "genzoo.api.samples",
    "check_recipe": "genzoo.api.schema",
    "dry_run": "genzoo.api.training",
    "train": "genzoo.api.training",
    "Recipe": "genzoo.core.recipe",
    "load_recipe": "genzoo.core.recipe",
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
    "load_run",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'genzoo.api' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

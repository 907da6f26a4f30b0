"""genzoo: a unified zoo of generative models. Importing it imports no torch; names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

__all__ = [
    "__version__",
    "autoregression",
    "build_task",
    "core",
    "count",
    "create_model",
    "data",
    "diffusion",
    "edit_concepts",
    "evaluation",
    "families",
    "from_pretrained",
    "kernels",
    "list_models",
    "load_recipe",
    "load_run",
    "merge_concepts",
    "nn",
    "pipelines",
    "pretrained",
    "recipe_from",
    "train",
    "training",
]

_ELSEWHERE = {
    "edit_concepts": "genzoo.families.custom_diffusion.edit.concepts",
    "merge_concepts": "genzoo.families.custom_diffusion.merge.concepts",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'genzoo' has no attribute {name!r}")
    try:
        return import_module(f"genzoo.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"genzoo.{name}":
            raise
    return getattr(import_module(_ELSEWHERE.get(name, "genzoo.api")), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""genzoo: a unified zoo of generative models. Importing it imports no torch; names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "list_models": "genzoo.api",
    "create_model": "genzoo.api",
    "load_recipe": "genzoo.api",
    "build_task": "genzoo.api",
    "train": "genzoo.api",
    "load_run": "genzoo.api",
    "count": "genzoo.api",
    "merge_concepts": "genzoo.families.custom_diffusion.merge.concepts",
}
_MODULES = (
    "kernels",
    "nn",
    "diffusion",
    "autoregression",
    "data",
    "pretrained",
    "training",
    "evaluation",
    "families",
    "core",
)

__all__ = ["__version__", *_EXPORTS, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    if name in _MODULES:
        return import_module(f"genzoo.{name}")
    raise AttributeError(f"module 'genzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

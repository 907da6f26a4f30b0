"""A recipe as it may leave this machine: no path of it names a place here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genzoo.assets.shipped import is_shipped
from genzoo.core.paths import exists
from genzoo.core.recipe import MISSING, Recipe, recipe_from
from genzoo.core.registry import REGISTRIES

DROPPED = ("init_from",)


def portable(recipe: Recipe, codec: Mapping[str, Any] | None) -> Recipe:
    """The recipe with `???` for every place on this machine, and the codec as it holds elsewhere."""
    kept = {key: value for key, value in recipe.data.items() if key not in DROPPED}
    if codec is not None:
        kept["codec"] = dict(codec)
    return recipe_from(_without_places(kept), source=recipe.source)


def is_place(text: str) -> bool:
    """Whether a text is a path of this machine: absolute, of a home, or something that is there."""
    if is_shipped(text) or any(text in names for names in REGISTRIES.values()):
        return False
    return Path(text).is_absolute() or text.startswith("~") or (_is_path(text) and exists(text))


def _is_path(text: str) -> bool:
    return os.sep in text or "." in text or Path(text).is_dir()


def _without_places(node: Any, key: str = "") -> Any:
    if isinstance(node, Mapping):
        return {name: _without_places(value, str(name)) for name, value in node.items()}
    if isinstance(node, list):
        return [_without_places(value, key) for value in node]
    return MISSING if isinstance(node, str) and key != "name" and is_place(node) else node

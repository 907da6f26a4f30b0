"""What a shell may complete: names of recipes, models, runs and kinds. Imports no torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def recipes(incomplete: str) -> list[str]:
    """Shipped recipes and those beside the current folder, by name; files by path."""
    from genzoo.api.recipes.listing import list_recipes

    return [*_starting(list_recipes(), incomplete), *_paths(incomplete, (".yaml", ".yml"))]


def models(incomplete: str) -> list[str]:
    """Names for `genzoo count`."""
    from genzoo.api.recipes.listing import list_models

    return _starting(list_models(), incomplete)


def kinds(incomplete: str) -> list[str]:
    """What `genzoo list` lists."""
    from genzoo.api.recipes.listing import KINDS

    return _starting(KINDS, incomplete)


def protocols(incomplete: str) -> list[str]:
    """Names for `genzoo evaluate --protocol`."""
    from genzoo.evaluation.protocols import outline

    return _starting(outline(), incomplete)


def runs(incomplete: str) -> list[str]:
    """Runs below runs/, weights that ship, then any other folder, and files of weights."""
    from genzoo.api.recipes.listing import shipped_weights

    below = [f"runs/{name}" for name in _names("runs") if os.path.isfile(f"runs/{name}/recipe.yaml")]
    found = _starting([*below, *shipped_weights()], incomplete)
    return [
        *found,
        *(path for path in _paths(incomplete, (".safetensors",)) if path.rstrip("/") not in found),
    ]


def _starting(names: object, incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]  # type: ignore[attr-defined]


def _paths(incomplete: str, endings: tuple[str, ...]) -> Iterator[str]:
    """Folders, with a slash, and files with one of the endings, that begin so."""
    folder, _, start = incomplete.rpartition("/")
    place = f"{folder}/" if "/" in incomplete else ""
    for name in _names(place or "."):
        if name.startswith(start) and (start or not name.startswith(".")):
            path = place + name
            if os.path.isdir(path):
                yield f"{path}/"
            elif name.endswith(endings):
                yield path


def _names(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(folder))
    return []

"""What there is: models, recipes and registered names, with one line about each. Imports no torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from pathlib import Path

from genzoo.assets.shipped import SCHEME, card, shipped_names
from genzoo.core.errors import UsageError, did_you_mean
from genzoo.core.paths import exists
from genzoo.core.recipe_source import names_in, roots
from genzoo.core.registry import MODELS, REGISTRIES
from genzoo.evaluation.protocols import outline

KINDS = ("models", "recipes", "weights", *REGISTRIES, "protocols")


def list_models(pattern: str = "*") -> list[str]:
    """Names for `create_model` that match a shell pattern, such as "dim*"."""
    return sorted(fnmatch.filter({*nouns("models"), *MODELS.names()}, pattern))


def require_model(name: str) -> None:
    """Raise UsageError for an unknown name. Needs no torch."""
    if not isinstance(name, str):
        raise UsageError(f"a model's name is text, not {name!r:.80}", fix="`genzoo list models` shows them")
    if name not in nouns("models") and name not in MODELS:
        hint = did_you_mean(name, list_models())
        raise UsageError(f"there is no model {name!r}", fix=hint or "`genzoo list models` shows them")


def require_data(source: str) -> None:
    """Raise UsageError for what is neither a folder or table nor a recipe. Needs no torch."""
    if not exists(source) and source not in list_recipes():
        raise UsageError(
            f"{source[:200]!r} is no folder, table or recipe",
            fix=did_you_mean(source, list_recipes()) or "name a folder of pictures or clips, or a recipe",
        )


def list_recipes(pattern: str = "*") -> list[str]:
    """Names for `genzoo train` that match a shell pattern: those beside the current folder, then shipped."""
    found = {name for root in roots("recipes") for name in names_in(root)}
    return sorted(name for name in found if fnmatch.fnmatch(name, pattern))


def shipped_weights() -> list[str]:
    """Names of the weights that ship, such as "assets:dim_emoji", which `load_run` takes."""
    return [f"{SCHEME}{name}" for name in shipped_names()]


def nouns(kind: str) -> dict[str, Path]:
    """The files of configs/KIND by name; those beside the current folder hide shipped ones of that name."""
    found: dict[str, Path] = {}
    for root in reversed(roots("configs")):
        if (root / kind).is_dir():
            found |= {name: root / kind / f"{name}.yaml" for name in names_in(root / kind)}
    return found


def describe(kind: str, pattern: str = "*") -> list[tuple[str, str]]:
    """(name, one line) of everything of a kind. Raises UsageError for an unknown kind."""
    if kind == "models":
        return [
            (name, header(path)) for name, path in sorted(nouns("models").items()) if _match(name, pattern)
        ]
    if kind == "recipes":
        return list(_recipes(pattern))
    if kind == "weights":
        return [(name, str(card(name))) for name in shipped_weights() if _match(name, pattern)]
    if kind == "protocols":
        return [(name, about) for name, about in outline().items() if _match(name, pattern)]
    if kind not in REGISTRIES:
        raise UsageError(
            f"there is no kind {kind!r}", fix=did_you_mean(kind, KINDS) or f"one of {', '.join(KINDS)}"
        )
    registry = REGISTRIES[kind]
    return [(name, registry.help(name)) for name in registry.names(pattern)]


def header(path: Path) -> str:
    """The first comment line of a YAML file: what the file is about."""
    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _recipes(pattern: str) -> Iterator[tuple[str, str]]:
    for name in list_recipes(pattern):
        path = next(root / f"{name}.yaml" for root in roots("recipes") if (root / f"{name}.yaml").is_file())
        yield name, header(path)


def _match(name: str, pattern: str) -> bool:
    return fnmatch.fnmatch(name, pattern)

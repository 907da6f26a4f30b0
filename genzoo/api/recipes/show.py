"""A recipe as text, each line with the file it came from. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genzoo.api.recipes.listing import nouns
from genzoo.api.recipes.named import recipe_named
from genzoo.core.errors import RecipeError
from genzoo.core.recipe import Recipe, load_section, recipe_from
from genzoo.core.recipe_source import display


def find(name: str, overrides: list[str]) -> Recipe:
    """A recipe by path or name, the recipe of a run, or a model of configs/models."""
    try:
        return recipe_named(name, overrides)
    except RecipeError:
        noun: Path | None = nouns("models").get(name)
        if noun is None or overrides:
            raise
        return recipe_from(load_section(noun), source=display(noun))


def annotated(recipe: Recipe) -> str:
    """The expanded recipe as YAML, with the origin of every value as a comment."""
    lines = list(_lines(recipe.data, recipe.origins))
    width = min(max((len(text) for text, _ in lines), default=0), 60)
    return "\n".join(f"{text:<{width}}  # {origin}" if origin else text for text, origin in lines)


def _lines(
    data: Any, origins: Mapping[str, str], key: str = "", indent: str = "", lead: str = ""
) -> Iterator[tuple[str, str]]:
    items: Any = data.items() if isinstance(data, Mapping) else enumerate(data)
    for name, value in items:
        path = f"{key}.{name}" if key else str(name)
        label = f"{name}:" if isinstance(data, Mapping) else "-"
        prefix, lead = lead or indent, ""
        if isinstance(value, (Mapping, list)) and value:
            if label == "-":
                yield from _lines(value, origins, path, f"{indent}  ", f"{prefix}- ")
            else:
                yield f"{prefix}{label}", ""
                yield from _lines(value, origins, path, f"{indent}  ")
        else:
            yield f"{prefix}{label} {_scalar(value)}", origins.get(path, "")


def _scalar(value: Any) -> str:
    from omegaconf import OmegaConf

    if isinstance(value, (Mapping, list)):
        return "{}" if isinstance(value, Mapping) else "[]"
    return OmegaConf.to_yaml(OmegaConf.create({"v": value})).strip().removeprefix("v:").strip()

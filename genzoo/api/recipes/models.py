"""Models by name, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.api.recipes.check import KINDS, check_node
from genzoo.api.recipes.listing import nouns, require_model
from genzoo.core.errors import RecipeError
from genzoo.core.exported import read_exported
from genzoo.core.progress import doing
from genzoo.core.recipe import load_section
from genzoo.core.recipe_source import display, is_file
from genzoo.core.registry import MODELS
from genzoo.core.signatures import AUTO

if TYPE_CHECKING:
    from torch import nn


def create_model(name: str, **overrides: Any) -> nn.Module:
    """A freshly initialised model by name, such as "dim_b4" with num_classes=10.

    overrides: arguments of the model's class in place of those in configs/models. The weights come from
    torch's global generator; seed it for repeatable ones. Raises UsageError naming every wrong argument.
    A file that `genzoo export` wrote is a name too: its model, with its weights.
    """
    exported = read_exported(Path(name)) if isinstance(name, str) else None
    if exported is not None:
        model = create_model(str(exported.model["name"]), **{**_arguments(exported.model), **overrides})
        exported.load_into(model)
        return model
    settings, source = model_settings(name, overrides)
    problems = list(check_node("model", settings, KINDS["model"]))
    waiting = [key for key, value in settings.items() if value == AUTO and key in KINDS["model"].auto]
    if problems or waiting:
        lines = [f"{source}: {problem.key}: {problem.message}" for problem in problems]
        raise RecipeError("\n".join([*lines, *(f"{source}: model.{key}: give a number" for key in waiting)]))
    name = settings.pop("name")
    import torch

    if torch.get_default_device().type == "cpu":  # none is held on the meta device
        from genzoo.api.recipes.memory import require_memory

        require_memory(name, settings)
    built: nn.Module = MODELS.get(name)(**settings)
    return built


def _arguments(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "name"}


def model_settings(name: str, overrides: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The section of a named model, and where it comes from. Raises UsageError for an unknown name."""
    require_model(name)
    files = nouns("models")
    if name in files:
        return load_section(files[name], overrides), display(files[name])
    return {"name": name, **overrides}, name


def count(
    model_or_name: nn.Module | str, *, image_size: int | None = None, paper: bool = False, **overrides: Any
) -> dict[str, Any]:
    """Parameters (millions) and multiply-adds (10^9) of one forward pass, as "params" and "gflops".

    image_size: pixels, of an image seen through an 8x autoencoder; the model's own size when left out.
    paper: count as the model's paper did, which leaves much out (`genzoo.nn.count` says what).
    """
    import torch

    from genzoo.nn.count import count_model

    if isinstance(model_or_name, torch.nn.Module):
        return count_model(model_or_name, image_size=image_size, paper=paper)
    # a billion parameters, none of them held; the weights of a file have to be
    where = "cpu" if is_file(Path(str(model_or_name))) else "meta"
    with doing(f"building {model_or_name}"), torch.device(where):
        model = create_model(model_or_name, **overrides)
    with doing(f"counting {model_or_name}"):
        return {"model": model_or_name, **count_model(model, image_size=image_size, paper=paper)}

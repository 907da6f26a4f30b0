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
import genzoo.pretrained
import genzoo.training  # noqa: F401  (imported for their cards)
from genzoo.core.registry import COMMANDS

if TYPE_CHECKING:
    from genzoo.api.recipes.build import build_task
    from genzoo.api.recipes.listing import list_models, list_recipes
    from genzoo.api.recipes.models import count, create_model
    from genzoo.api.recipes.plan import check_recipe
    from genzoo.api.run import Run, from_pretrained, load_run, train
    from genzoo.api.sampling.samples import Samples
    from genzoo.api.training.train import dry_run
    from genzoo.core.recipe import Recipe, load_recipe, recipe_from

COMMANDS.lazy(
    "prepare controls",
    "genzoo.api.commands.controls:prepare_controls_command",
    help="Extract controls of a recipe's pictures, or of a folder, once; with a sheet to look at.",
)
COMMANDS.lazy(
    "launch",
    "genzoo.api.commands.launch:launch_command",
    help="Write a script that trains a recipe under torchrun, Slurm, Kubernetes or SkyPilot.",
)
COMMANDS.lazy(
    "prepare shards",
    "genzoo.api.commands.shards:prepare_shards_command",
    help="note where each sample of tar shards is",
)
COMMANDS.lazy(
    "prepare latent-statistics",
    "genzoo.api.commands.latent_statistics:latent_statistics_command",
    help="Measure mean and deviation of each channel of a recipe's latents.",
)
COMMANDS.lazy(
    "prepare check",
    "genzoo.api.commands.check:prepare_check_command",
    help="Look at all data before a run: classes, sizes, unreadable files, duplicates, captions.",
)
COMMANDS.lazy(
    "sample",
    "genzoo.api.commands.sample:sample_command",
    help="Sample pictures from a run; the same command again makes those that are missing.",
)
COMMANDS.lazy(
    "sweep",
    "genzoo.api.commands.sweep:sweep_command",
    help="Train a recipe under every combination of settings, and compare.",
)
COMMANDS.lazy(
    "evaluate",
    "genzoo.api.commands.evaluate:evaluate_command",
    help="Judge samples by a named protocol; the result states everything its numbers depend on.",
)
COMMANDS.lazy(
    "plot",
    "genzoo.api.commands.plot:plot_command",
    help="Draw losses, held-out losses and evaluations of runs against steps, samples and seconds, as PNG.",
)
COMMANDS.lazy(
    "push",
    "genzoo.api.commands.push:push_command",
    help="Put a run or a concept on the Hugging Face hub, with its recipe, samples and a page.",
)
COMMANDS.lazy(
    "compare",
    "genzoo.api.commands.compare:compare_command",
    help="Set results side by side: intervals, what differs for certain, every difference in protocol.",
)

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

# What type checkers and editors see: in __init__.py these names load on first use.

from genzoo import (
    autoregression,
    core,
    data,
    diffusion,
    evaluation,
    families,
    kernels,
    nn,
    pipelines,
    pretrained,
    training,
)
from genzoo.api import (
    build_task,
    count,
    create_model,
    from_pretrained,
    list_models,
    load_recipe,
    load_run,
    recipe_from,
    train,
)
from genzoo.families.custom_diffusion.edit.concepts import edit_concepts
from genzoo.families.custom_diffusion.merge.concepts import merge_concepts

__version__: str

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

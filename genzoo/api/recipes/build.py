"""From a recipe to objects: data set, codec, model, task. Arguments that say `auto` are filled in here."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from genzoo.api.recipes.facts import facts_for
from genzoo.api.recipes.memory import require_memory
from genzoo.api.recipes.plan import RunPlan, plan_of
from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import HasKinds, SamplesAsTrained
from genzoo.core.errors import RecipeError, UsageError
from genzoo.core.node import Node
from genzoo.core.processes import World
from genzoo.core.recipe import Recipe
from genzoo.core.registry import CODECS, DATASETS, MODELS, TASKS, Registry
from genzoo.core.seeds import mix_seed
from genzoo.core.signatures import AUTO
from genzoo.data.shared_dataset import built_once

if TYPE_CHECKING:
    from torch import nn

    from genzoo.core.types import Dataset, LatentCodec, Task

NEEDED = ("sample_shape", "num_classes", "class_names", "fingerprint", "fetch", "__len__")  # of a data set


def build_task(recipe: Recipe, dataset: Dataset | None = None) -> Task:
    """The task of a recipe, with a freshly initialised model.

    dataset: looked at for facts when the model has `auto` arguments; built from the recipe when left out.
    """
    plan = plan_of(recipe)
    codec = build_codec(plan)
    if has_auto(plan):
        plan = resolve(plan, build_dataset(plan) if dataset is None else dataset, codec)
    return assemble(plan, codec)


def assemble(plan: RunPlan, codec: LatentCodec | None, model: nn.Module | None = None) -> Task:
    """The task around a codec that is already built; the plan's model holds no `auto` any more.

    model: built before; by the plan when left out.
    """
    sampler = {} if plan.sampler is None else {"sampler": plan.sampler.section()}
    factory = TASKS.get(plan.task.name)
    model = build_model(plan) if model is None else model
    several = able(factory, HasKinds)
    factory = factory if several is None else several.kind_for(model)
    task: Task = factory(model, codec=codec, **plan.task.arguments, **sampler)
    following = able(task, SamplesAsTrained)
    if following is not None and plan.train is not None:
        following.run_precision = plan.train.precision
    return task


def build_model(plan: RunPlan) -> nn.Module:
    """The recipe's model; its initial weights depend on train.seed and nothing else."""
    require_memory(plan.model.name, plan.model.arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seed(plan.seed, "init"))
        model: nn.Module = _build(plan, "model", plan.model, MODELS)
    return model


def build_dataset(plan: RunPlan, world: World | None = None) -> Dataset:
    """The recipe's data set. Raises DataError when its files are missing.

    world: processes that make this call together; the first one looks at the files, and tells the others.
    """
    return built_once(
        world or World.single(), lambda: _complete(plan.data.name, _build(plan, "data", plan.data, DATASETS))
    )


def _complete(name: str, dataset: Any) -> Any:
    """A data set that has what every one needs, which the author of a new one may not know."""
    absent = object()  # looked for without running a property, such as a fingerprint of all files
    lacking = [one for one in NEEDED if inspect.getattr_static(dataset, one, absent) is absent]
    lacking = [one for one in lacking if not hasattr(dataset, one)]
    if lacking:
        raise UsageError(
            f"the data set {name!r} has no {', no '.join(lacking)}",
            why="a data set of genzoo has some members that one of torch has not",
            fix=f"add {' and '.join(lacking)}; help(genzoo.core.types.Dataset) says what they are",
        )
    return dataset


def build_codec(plan: RunPlan) -> LatentCodec | None:
    """The recipe's codec, or None when it trains on the pixels themselves. Raises WeightsError offline."""
    return None if plan.codec is None else _build(plan, "codec", plan.codec, CODECS)


def has_auto(plan: RunPlan) -> bool:
    """True while the model has arguments that wait for facts."""
    return AUTO in plan.model.arguments.values()


def resolve(plan: RunPlan, dataset: Dataset, codec: LatentCodec | None) -> RunPlan:
    """The plan with the model's `auto` arguments replaced by what the data set and the codec say."""
    return plan.with_model(facts_for(plan.model, dataset, codec), "auto: from the data and the codec")


def _build(plan: RunPlan, section: str, node: Node, registry: Registry) -> Any:
    try:
        with torch.random.fork_rng(devices=[]):  # fresh layers draw their weights, also those replaced after
            return registry.get(node.name)(**node.arguments)
    except TypeError as error:  # a value of the right type that the constructor still cannot use
        raise RecipeError(f"{plan.recipe.source}: {section}: {error}") from error

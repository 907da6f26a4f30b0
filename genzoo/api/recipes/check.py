"""Which factory answers for which section of a recipe, and the check of a whole recipe against them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genzoo.api.recipes.ports import port_problems
from genzoo.core.contracts import SharesSamplingOptions, SuppliesLossOptions, TellsModel, able
from genzoo.core.errors import GenzooError, RecipeError, RegistryError, did_you_mean
from genzoo.core.recipe import MISSING, Recipe
from genzoo.core.registry import (
    CODECS,
    CONTROLS,
    DATASETS,
    LOSSES,
    METRICS,
    MODELS,
    OPTIMIZERS,
    SAMPLERS,
    TASKS,
    Registry,
)
from genzoo.core.signatures import Parameter, Problem, check_settings, parameters, takes_anything

FACTS = ("num_classes", "in_channels", "input_size", "num_frames")
"""Model arguments that may say `auto`: the data set and the codec know them. A data set may know more."""

BLOCK_SIZE = Parameter(int, False)
WHILE_TRAINING = ("preview", "evaluation", "report")
BEFORE_TRAINING = ("name", "task", "model", "init_from", "data", "codec", "sampler", "optim")
SECTIONS = (*BEFORE_TRAINING, "train", *WHILE_TRAINING)


@dataclass(frozen=True)
class Kind:
    """How a section is checked. injected: supplied by the program. options: only keyword arguments count."""

    registry: Registry
    injected: tuple[str, ...] = ()
    options: bool = False
    auto: tuple[str, ...] = ()


INJECTED_INTO_TASK = ("model", "codec", "sampler")
KINDS = {
    "model": Kind(MODELS, auto=FACTS),
    "data": Kind(DATASETS),
    "codec": Kind(CODECS),
    "task": Kind(TASKS, injected=INJECTED_INTO_TASK),
    "loss": Kind(LOSSES, options=True),
    "sampler": Kind(SAMPLERS, options=True),
    "metric": Kind(METRICS, options=True),
    "control": Kind(CONTROLS, options=True),
}


def check_recipe(recipe: Recipe) -> list[str]:
    """Raise one RecipeError with everything that is wrong; return the keys that only the user can fill in."""
    problems = list(recipe_problems(recipe))
    if problems:
        lines = list(dict.fromkeys(f"{recipe.origin(p.key)}: {p.key}: {p.message}" for p in problems))
        count = f"{recipe.source}: {len(lines)} problems\n" if len(lines) > 1 else ""
        raise RecipeError(count + "\n".join(lines))
    return recipe.missing()


def require_complete(recipe: Recipe, but: Sequence[str] = ()) -> None:
    """Raise RecipeError when the recipe is wrong or still holds `???`; sections in `but` may."""
    missing = [key for key in check_recipe(recipe) if key.partition(".")[0] not in but]
    if missing:
        given = " ".join(f"{key}=..." for key in missing)
        raise RecipeError(
            f"{recipe.source}: {', '.join(missing)}: you have to give this value", fix=f"add {given}"
        )


def recipe_problems(recipe: Recipe) -> Iterator[Problem]:
    """Everything wrong with a recipe, section by section."""
    for key in recipe.data:
        if key not in SECTIONS:
            hint = did_you_mean(key, SECTIONS) or f"a recipe has {', '.join(SECTIONS)}"
            yield Problem(key, f"there is no section {key!r}; {hint}")
    if not isinstance(recipe.data.get("name", ""), str):
        yield Problem("name", f"must be text, not {recipe.data['name']!r}")
    for key in ("task", "model", "data"):
        if recipe.data.get(key) is None:
            yield Problem(key, "a recipe needs this section")
    yield from _named_sections(recipe.data)
    yield from _plain_sections(recipe.data)
    yield from port_problems(recipe.data)


def _named_sections(data: Mapping[str, Any]) -> Iterator[Problem]:
    for key in ("model", "data", "codec"):
        if data.get(key) is not None:
            kind = (
                replace(KINDS[key], auto=(*FACTS, *_told(data.get("data")))) if key == "model" else KINDS[key]
            )
            yield from check_node(key, data[key], kind)
    if data.get("task") is not None:
        yield from _task_problems(data["task"])
    if data.get("sampler") is not None:
        extra = _sampling_parameters(data.get("task"))
        yield from check_node("sampler", data["sampler"], KINDS["sampler"], extra=extra)
    report = data.get("report")
    if report is not None and not isinstance(report, list):
        yield Problem("report", f"must be a list of metrics, not {report!r}")
    for index, node in enumerate(report if isinstance(report, list) else ()):
        yield from check_node(f"report.{index}", node, KINDS["metric"])


def _plain_sections(data: Mapping[str, Any]) -> Iterator[Problem]:
    from genzoo.api.runs.warm_start import InitFrom
    from genzoo.api.training.evaluation_hook import Evaluation
    from genzoo.api.training.preview_hook import Preview
    from genzoo.training.config import TrainConfig

    yield from _check_plain("train", data.get("train"), TrainConfig)
    yield from _check_plain("preview", data.get("preview"), Preview)
    yield from _check_plain("init_from", data.get("init_from"), InitFrom)
    yield from _check_plain("evaluation", data.get("evaluation"), Evaluation)
    if data.get("optim") is not None:
        node = data["optim"]
        named = {"name": "adamw", **node} if isinstance(node, Mapping) else node
        yield from check_node("optim", named, Kind(OPTIMIZERS, options=True))


def check_node(
    key: str, node: Any, kind: Kind, *, extra: Mapping[str, Parameter] | None = None
) -> Iterator[Problem]:
    """Problems of a section that names a registered factory and holds its arguments."""
    factory = _factory(node, kind)
    if isinstance(factory, str):
        yield Problem(key if not isinstance(node, Mapping) else f"{key}.name", factory)
        return
    allowed = parameters(factory, keyword_only=kind.options) | dict(extra or {})
    settings = {name: value for name, value in node.items() if name != "name"}
    yield from check_settings(
        settings,
        allowed,
        key=key,
        owner=node["name"],
        supplied=kind.injected,
        auto=kind.auto,
        open_ended=takes_anything(factory) and not kind.options,
    )


def _factory(node: Any, kind: Kind) -> Callable[..., Any] | str:
    """The factory a section names, or what is wrong with the section."""
    if not isinstance(node, Mapping):
        return f"must be a mapping with a `name`, not {node!r}"
    name = node.get("name")
    if not isinstance(name, str):
        return f"needs the name of a {kind.registry.kind}: one of {', '.join(kind.registry.names())}"
    try:
        return kind.registry.get(name)
    except RegistryError as error:
        return error.what
    except GenzooError as error:  # the factory's module needs something that is not installed
        return error.what


def _told(node: Any) -> tuple[str, ...]:
    """What a data set knows beyond the usual facts."""
    factory = _factory(node, KINDS["data"])
    telling = able(factory, TellsModel)
    return () if telling is None else tuple(telling.tells)


def _task_problems(node: Any) -> Iterator[Problem]:
    if isinstance(node, Mapping) and "loss" in node:
        factory = _factory(node, KINDS["task"])
        supplying = able(factory, SuppliesLossOptions)
        supplies = () if supplying is None else tuple(supplying.supplies)
        yield from check_node("task.loss", node["loss"], replace(KINDS["loss"], injected=supplies))
    control = node.get("control") if isinstance(node, Mapping) else None
    if control is not None and control != MISSING:
        named = {"name": control} if isinstance(control, str) else control
        yield from check_node("task.control", named, KINDS["control"])
    yield from check_node("task", node, KINDS["task"])


def _sampling_parameters(task: Any) -> dict[str, Parameter]:
    """What every sampler takes from this task, such as the guidance scale."""
    factory = _factory(task, KINDS["task"])
    extra = {"block_size": BLOCK_SIZE}
    sharing = able(factory, SharesSamplingOptions)
    for source in () if sharing is None else sharing.sampling_options:
        extra |= parameters(source)
    return extra


def _check_plain(key: str, node: Any, factory: Callable[..., Any]) -> Iterator[Problem]:
    """Problems of a section that is not registered by name; its class may check ranges when built."""
    if node is None:
        return
    if not isinstance(node, Mapping):
        yield Problem(key, f"must be a mapping of settings, not {node!r}")
        return
    problems = check_settings(node, parameters(factory), key=key, owner=key)
    yield from problems
    if not problems and MISSING not in node.values():
        try:
            factory(**node)
        except RecipeError as error:
            for line in error.what.splitlines():
                name, _, message = line.removeprefix(f"{key}.").partition(": ")
                yield Problem(f"{key}.{name}", message)

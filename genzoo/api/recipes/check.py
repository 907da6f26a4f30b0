"""Which factory or record answers for which section of a recipe, and the check of one against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from genzoo.api.recipes.facts import KNOWN
from genzoo.api.recipes.sections import Sampling
from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import TellsModel
from genzoo.core.contracts.tasks import SharesSamplingOptions, SuppliesLossOptions
from genzoo.core.errors import GenzooError, RecipeError, RegistryError
from genzoo.core.recipe import MISSING
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
from genzoo.training.rates import Curve

FACTS = tuple(KNOWN)

DRAWING = ("steps", "guidance_scale")
"""Options of a sampler that previews and evaluations may set."""

LEAST = (
    *(("optim", name, 0) for name in ("lr", "weight_decay", "warmup_steps", "eps")),
    *((section, "steps", 1) for section in ("sampler", "preview", "evaluation")),
)
"""(section, key, the smallest number it may be)."""

T = TypeVar("T")


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
    "optim": Kind(OPTIMIZERS, options=True),
    "metric": Kind(METRICS, options=True),
    "control": Kind(CONTROLS, options=True),
}


def named_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems of the sections that name a factory, each against the signature of that factory."""
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
    if data.get("optim") is not None:
        node = with_optimizer(data["optim"])
        yield from check_node("optim", node, KINDS["optim"], extra=parameters(Curve))
    yield from _drawing_problems(data)
    yield from _number_problems(data)
    report = data.get("report")
    if report is not None and not isinstance(report, list):
        yield Problem("report", f"must be a list of metrics, not {report!r}")
    for index, node in enumerate(report if isinstance(report, list) else ()):
        yield from check_node(f"report.{index}", node, KINDS["metric"])


def _drawing_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Options by which previews and evaluations draw, where the recipe's sampler has no such option."""
    factory = _factory(data.get("sampler"), KINDS["sampler"])
    if isinstance(factory, str):
        return
    known = parameters(factory, keyword_only=True) | _sampling_parameters(data.get("task"))
    for section in ("preview", "evaluation"):
        node = data.get(section)
        given = [name for name in DRAWING if isinstance(node, Mapping) and node.get(name) is not None]
        for name in given:
            if name not in known:
                owner = data["sampler"]["name"]
                yield Problem(
                    f"{section}.{name}", f"the sampler {owner} has no option {name!r}; leave it out"
                )


def _number_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Numbers that no optimizer and no sampler can use, whichever it is."""
    for section, name, least in LEAST:
        node = data.get(section)
        value = node.get(name) if isinstance(node, Mapping) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not value >= least:
            yield Problem(f"{section}.{name}", f"must be at least {least}, not {value!r}")


def with_optimizer(node: Any) -> Any:
    """The optim section with the name that it has when it says none."""
    return {"name": "adamw", **node} if isinstance(node, Mapping) else node


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
        hint = f"; write {{name: {node}}}" if isinstance(node, str) else ""
        return f"must be a mapping with a `name`, not {node!r}{hint}"
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
    if isinstance(node, Mapping) and node.get("loss", MISSING) != MISSING:
        factory = _factory(node, KINDS["task"])
        supplying = able(factory, SuppliesLossOptions)
        supplies = () if supplying is None else tuple(supplying.supplies)
        loss = {"name": node["loss"]} if isinstance(node["loss"], str) else node["loss"]
        yield from check_node("task.loss", loss, replace(KINDS["loss"], injected=supplies))
    control = node.get("control") if isinstance(node, Mapping) else None
    if control is not None and control != MISSING:
        named = {"name": control} if isinstance(control, str) else control
        yield from check_node("task.control", named, KINDS["control"])
    yield from check_node("task", node, KINDS["task"])


def _sampling_parameters(task: Any) -> dict[str, Parameter]:
    """What every sampler takes from this task, such as the guidance scale."""
    factory = _factory(task, KINDS["task"])
    extra = parameters(Sampling)
    sharing = able(factory, SharesSamplingOptions)
    for source in () if sharing is None else sharing.sampling_options:
        extra |= parameters(source)
    return extra


def read_record(key: str, node: Any, record: Callable[..., T]) -> tuple[T | None, list[Problem]]:
    """What a section says that names no factory, and what is wrong with it; its class may check ranges.

    None instead of the record for a section that is absent, wrong, or waits for the user's values.
    """
    if node is None:
        return None, []
    if not isinstance(node, Mapping):
        keys = " or ".join(f"{key}.{name}=..." for name in list(parameters(record))[:3])
        return None, [Problem(key, f"must be a mapping of settings, not {node!r}; write {keys}")]
    problems = check_settings(node, parameters(record), key=key, owner=key)
    if problems or MISSING in node.values():
        return None, problems
    try:
        return record(**node), []
    except RecipeError as error:
        lines = [line.removeprefix(f"{key}.").partition(": ") for line in error.what.splitlines()]
        return None, [Problem(f"{key}.{name}", message) for name, _, message in lines]

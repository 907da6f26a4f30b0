"""Whether the parts that a recipe names fit each other: what each takes, against what the others are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from genzoo.core.errors import UsageError
from genzoo.core.registry import (
    CODECS,
    CONTROLS,
    DATASETS,
    LOSSES,
    METRICS,
    MODELS,
    SAMPLERS,
    TASKS,
    Entry,
    Registry,
)
from genzoo.core.signatures import Problem

SECTIONS: dict[str, tuple[str, Registry]] = {
    "task": ("task", TASKS),
    "model": ("model", MODELS),
    "data": ("data", DATASETS),
    "codec": ("codec", CODECS),
    "sampler": ("sampler", SAMPLERS),
    "loss": ("task.loss", LOSSES),
    "control": ("task.control", CONTROLS),
}
"""What `takes` may name -> where a recipe has it, and whose names stand there."""


class Part(NamedTuple):
    """One named part of a recipe. key: where the name stands."""

    key: str
    registry: Registry
    name: str


class Asker(NamedTuple):
    """Who wants other parts to fit. key: where a misfit is reported; at the other part when None."""

    what: str
    entry: Entry
    key: str | None = None


EVALUATION = Entry("", takes={"task": ("generates",), "data": ("pictures",)})
"""What the section `evaluation`, which names no entry, wants of the others."""


def port_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Parts of a recipe that another part does not take. Unknown names are left to the check of names."""
    parts = dict(_parts(data))
    for what, entry, key in _askers(data, parts):
        for section in entry.needs:
            where, registry = SECTIONS[section]
            if _at(data, where) is None:
                choice = _choice(registry, entry.takes.get(section, ()))
                yield Problem(where, f"{what} needs a {registry.kind}{choice}")
        for section, ports in entry.takes.items():
            where, registry = SECTIONS[section]
            part = parts.get(section)
            if not ports and _at(data, where) is not None:
                yield Problem(where, f"{what} takes no {registry.kind}; leave this section out")
            elif ports and part is not None and not registry.entry(part.name).fits(ports):
                yield Problem(key or part.key, f"{part.name} does not fit {what}{_choice(registry, ports)}")


def require_sampler(data: Mapping[str, Any], name: str) -> None:
    """Raise UsageError when a recipe's task does not take this sampler, before anything is sampled."""
    chosen = {**data, "sampler": {"name": name}}
    for problem in port_problems(chosen):
        if problem.key.startswith("sampler"):
            raise UsageError(problem.message)


def _askers(data: Mapping[str, Any], parts: Mapping[str, Part]) -> Iterator[Asker]:
    for part in parts.values():
        yield Asker(f"the {part.registry.kind} {part.name}", part.registry.entry(part.name))
    for part in _metrics(data.get("report")):
        yield Asker(f"the metric {part.name}", METRICS.entry(part.name), part.key)
    if data.get("evaluation") is not None:
        yield Asker("an evaluation during training", EVALUATION, "evaluation")


def _choice(registry: Registry, ports: tuple[str, ...]) -> str:
    names = registry.fitting(ports)
    one_of = "one of " if len(names) > 1 else ""
    return f", which takes {one_of}{', '.join(names)}" if names else ""


def _parts(data: Mapping[str, Any]) -> Iterator[tuple[str, Part]]:
    for section, (key, registry) in SECTIONS.items():
        part = _part(key, _at(data, key), registry)
        if part is not None:
            yield section, part


def _metrics(report: Any) -> Iterator[Part]:
    for index, node in enumerate(report if isinstance(report, list) else ()):
        part = _part(f"report.{index}", node, METRICS)
        if part is not None:
            yield part


def _part(key: str, node: Any, registry: Registry) -> Part | None:
    name = node.get("name") if isinstance(node, Mapping) else node
    if not isinstance(name, str) or name not in registry:
        return None
    return Part(f"{key}.name" if isinstance(node, Mapping) else key, registry, name)


def _at(data: Mapping[str, Any], key: str) -> Any:
    section, _, inner = key.partition(".")
    node = data.get(section)
    return node if not inner else node.get(inner) if isinstance(node, Mapping) else None

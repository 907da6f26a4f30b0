"""Which options sampling takes, known before anything is sampled or written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import ChoosesSampler, SharesSamplingOptions
from genzoo.core.errors import UsageError, did_you_mean
from genzoo.core.ranges import range_problem
from genzoo.core.registry import SAMPLERS
from genzoo.core.signatures import Parameter, parameters, plain_problem, takes_anything

if TYPE_CHECKING:
    from genzoo.core.types import Task

CHOICE = ("sampler", "name")
"""The options that choose another sampler than the recipe's."""


class SampleOptions(NamedTuple):
    """A user's options. conditions: what to sample (class_labels, ...).   sampler: how (steps, ...)."""

    conditions: dict[str, Any]
    sampler: dict[str, Any]


def sorted_options(task: Task, options: Mapping[str, Any]) -> SampleOptions:
    """Options into those of `task.conditions` and those of its sampler; what is None was not given.

    Raises UsageError for an option that neither has, with the nearest names, and for a value of another type,
    such as text in place of a number; RegistryError for a sampler that does not exist.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in CHOICE:
        if not isinstance(given.get(name, ""), str):
            raise UsageError(f"{name} is {given[name]!r}", fix="name one of `genzoo list samplers`")
    what = _condition_parameters(task)
    refuse_misfits(given, what)
    how = sampler_parameters(task, next((given[name] for name in CHOICE if name in given), None))
    conditions = {name: value for name, value in given.items() if name in what}
    rest = {name: value for name, value in given.items() if name not in what}
    if how is not None:
        _refuse_unknown([name for name in rest if name not in (*how, *CHOICE)], list(what), list(how))
        refuse_misfits(rest, how)
    return SampleOptions(conditions, rest)


def sampler_parameters(task: Task, chosen: str | None = None) -> dict[str, Parameter] | None:
    """The options that the task's sampler takes, or the chosen one in its place.

    None for a task that takes any and does not say which.
    """
    own = parameters(task.sample, keyword_only=True)
    choosing = able(task, ChoosesSampler)
    if choosing is None:
        return None if takes_anything(task.sample) else own
    name = chosen or choosing.sampler.get("name")
    if name is None:
        return own
    sharing = able(task, SharesSamplingOptions)
    for factory in () if sharing is None else sharing.sampling_options:
        own |= parameters(factory)
    return own | parameters(SAMPLERS.get(name), keyword_only=True)


def _condition_parameters(task: Task) -> dict[str, Parameter]:
    return {name: known for name, known in parameters(task.conditions).items() if name != "num"}


def _refuse_unknown(unknown: list[str], what: list[str], how: list[str]) -> None:
    if not unknown:
        return
    known = [*what, *how, "sampler"] if how else what
    named = ", ".join(f"{name!r}{_hint(name, known)}" for name in unknown)
    takes = [f"what to sample: {', '.join(what)}"] if what else []
    takes += [f"how: {', '.join(how)}"] if how else []
    raise UsageError(f"sampling has no option {named}", fix="; ".join(takes) or "leave it out")


def _hint(name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    return f" ({hint})" if hint else ""


def refuse_misfits(options: Mapping[str, Any], known: Mapping[str, Parameter]) -> None:
    """Raise UsageError for the first option whose value is of another type, or out of range."""
    for name, value in options.items():
        wrong = None
        if name in known:
            wrong = plain_problem(value, known[name].annotation) or range_problem(name, value)
        if wrong:
            raise UsageError(f"{name} {wrong}")

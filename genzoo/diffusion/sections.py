"""From recipe sections to functions: which options a loss or a sampler takes, checked early."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar

from genzoo.core.errors import UsageError, did_you_mean
from genzoo.core.registry import LOSSES, SAMPLERS, Registry
from genzoo.diffusion.guidance import Guidance
from genzoo.diffusion.schedule import NoiseSchedule, make_schedule

GUIDANCE_OPTIONS = tuple(field.name for field in fields(Guidance))
# set by the task for loss and sampler alike, so that they cannot disagree
SHARED_OPTIONS = ("prediction", "channel_axis")
PORT = "diffusion"  # of the losses and samplers that the Gaussian tasks take
GuidanceKind = TypeVar("GuidanceKind")


def option_names(registry: Registry, name: str) -> list[str]:
    """Names a section may use beside `name`: keyword-only parameters, and guidance for samplers."""
    parameters = inspect.signature(registry.get(name)).parameters.values()
    own = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in SHARED_OPTIONS]
    return own + (list(GUIDANCE_OPTIONS) if registry is SAMPLERS else [])


def check_options(registry: Registry, name: str, options: Mapping[str, Any]) -> None:
    """Raise UsageError naming every option that this loss or sampler does not have."""
    known = option_names(registry, name)
    unknown = [f"{key!r} ({did_you_mean(key, known) or 'unknown'})" for key in options if key not in known]
    if unknown:
        raise UsageError(
            f"{registry.kind} {name!r} has no option {', '.join(unknown)}", fix=f"it takes {', '.join(known)}"
        )


def build_loss(loss: str | Mapping[str, Any] | Callable[..., Any], *, port: str = PORT) -> Callable[..., Any]:
    """A loss function from a name, from a section `{name: hybrid, vb_weight: 1.0}`, or as it is."""
    if callable(loss):
        return loss
    name, options = _split({"name": loss} if isinstance(loss, str) else loss, LOSSES)
    LOSSES.require_port(name, port)
    check_options(LOSSES, name, options)
    return partial(LOSSES.get(name), **options)


def build_schedule(schedule: str | Mapping[str, Any] | NoiseSchedule | None) -> NoiseSchedule:
    """A schedule from a name, from a section `{name: linear, num_timesteps: 1000}`, or as it is."""
    if isinstance(schedule, NoiseSchedule):
        return schedule
    section = (
        {"name": schedule or "linear"} if schedule is None or isinstance(schedule, str) else dict(schedule)
    )
    known = list(inspect.signature(make_schedule).parameters)
    unknown = [f"{key!r} ({did_you_mean(key, known) or 'unknown'})" for key in section if key not in known]
    if unknown:
        raise UsageError(
            f"a noise schedule has no option {', '.join(unknown)}", fix=f"it takes {', '.join(known)}"
        )
    return make_schedule(**section)


def merge_sampler(
    section: Mapping[str, Any], overrides: Mapping[str, Any], *, port: str = PORT
) -> dict[str, Any]:
    """A sampler section under overrides; "sampler" or "name" chooses another and drops the old options.

    Guidance outlives such a change: it belongs to the model.
    """
    changes = dict(overrides)
    name = changes.pop("sampler", None) or changes.pop("name", None) or section.get("name")
    same = name == section.get("name")
    kept = {key: value for key, value in section.items() if same or key in GUIDANCE_OPTIONS}
    merged = {**kept, **changes, "name": name}
    name, options = _split(merged, SAMPLERS)
    SAMPLERS.require_port(name, port)
    check_options(SAMPLERS, name, options)
    return merged


def build_sampler(section: Mapping[str, Any]) -> tuple[Callable[..., Any], Guidance]:
    """The sampler function with its options, and the guidance, of a checked section."""
    return split_guidance(section, Guidance)


def split_guidance(
    section: Mapping[str, Any], kind: Callable[..., GuidanceKind]
) -> tuple[Callable[..., Any], GuidanceKind]:
    """The same with guidance of another kind, whose options have the same names."""
    name, options = _split(section, SAMPLERS)
    guidance = kind(**{key: options.pop(key) for key in GUIDANCE_OPTIONS if key in options})
    return partial(SAMPLERS.get(name), **options), guidance


def _split(section: Mapping[str, Any], registry: Registry) -> tuple[str, dict[str, Any]]:
    options = dict(section)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise UsageError(
            f"a {registry.kind} section needs a name", fix=f"one of {', '.join(registry.names())}"
        )
    return name, options

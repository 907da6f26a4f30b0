"""From recipe sections to functions: which options a loss or a sampler takes, checked early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar

from genzoo.core.errors import UsageError
from genzoo.core.registry import LOSSES, SAMPLERS, Registry
from genzoo.core.signatures import Parameter, check_settings, parameters
from genzoo.diffusion.guidance import Guidance
from genzoo.diffusion.precision import Arithmetic, at_precision
from genzoo.diffusion.schedule import NoiseSchedule, make_schedule

GUIDANCE_OPTIONS = tuple(field.name for field in fields(Guidance))
OF_THE_MODEL = (*GUIDANCE_OPTIONS, *(field.name for field in fields(Arithmetic)))  # whatever samples it
# set by the task for loss and sampler alike, so that they cannot disagree
SHARED_OPTIONS = ("prediction", "channel_axis")
PORT = "diffusion"  # of the losses and samplers that the Gaussian tasks take
GuidanceKind = TypeVar("GuidanceKind")


def options_of(registry: Registry, name: str) -> dict[str, Parameter]:
    """What a section may hold beside `name`: keyword-only parameters, and what suits every sampler."""
    own = parameters(registry.get(name), keyword_only=True)
    own = {key: parameter for key, parameter in own.items() if key not in SHARED_OPTIONS}
    shared = parameters(Guidance) | parameters(Arithmetic)
    return own | (shared if registry is SAMPLERS else {})


def check_options(owner: str, options: Mapping[str, Any], allowed: Mapping[str, Parameter]) -> None:
    """Raise UsageError naming every option that `owner` does not have, or that has a wrong value."""
    problems = check_settings(options, allowed, key="", owner=owner, what="option")
    if problems:
        lines = [f"{problem.key.lstrip('.')}: {problem.message}" for problem in problems]
        raise UsageError("\n".join(lines), fix=f"{owner} takes {', '.join(allowed)}")


def build_loss(loss: str | Mapping[str, Any] | Callable[..., Any], *, port: str = PORT) -> Callable[..., Any]:
    """A loss function from a name, from a section `{name: hybrid, vb_weight: 1.0}`, or as it is."""
    if callable(loss):
        return loss
    name, options = _split({"name": loss} if isinstance(loss, str) else loss, LOSSES)
    LOSSES.require_port(name, port)
    check_options(f"loss {name!r}", options, options_of(LOSSES, name))
    return partial(LOSSES.get(name), **options)


def build_schedule(schedule: str | Mapping[str, Any] | NoiseSchedule | None) -> NoiseSchedule:
    """A schedule from a name, from a section `{name: linear, num_timesteps: 1000}`, or as it is."""
    if isinstance(schedule, NoiseSchedule):
        return schedule
    section = (
        {"name": schedule or "linear"} if schedule is None or isinstance(schedule, str) else dict(schedule)
    )
    check_options("a noise schedule", section, parameters(make_schedule))
    return make_schedule(**section)


# methods that follow either kind of path, by what a flow calls its form of them
FLOW_FORMS = {name: f"flow_{name}" for name in ("dpm_solver_pp", "euler", "heun", "unipc")}


def merge_sampler(
    section: Mapping[str, Any], overrides: Mapping[str, Any], *, port: str = PORT
) -> dict[str, Any]:
    """A sampler section under overrides; "sampler" or "name" chooses another and drops the old options.

    Guidance and precision outlive such a change: they belong to the model. A flow takes "heun" for its
    "flow_heun".
    """
    forms: Mapping[str, str] = {} if port == PORT else FLOW_FORMS
    changes = dict(overrides)
    before = section.get("name")
    before = forms.get(str(before), before)
    name = changes.pop("sampler", None) or changes.pop("name", None) or before
    name = forms.get(str(name), name)
    same = name == before
    kept = {key: value for key, value in section.items() if same or key in OF_THE_MODEL}
    merged = {**kept, **changes, "name": name}
    name, options = _split(merged, SAMPLERS)
    SAMPLERS.require_port(name, port)
    check_options(f"sampler {name!r}", options, options_of(SAMPLERS, name))
    return merged


def build_sampler(
    section: Mapping[str, Any], run_precision: str = "fp32"
) -> tuple[Callable[..., Any], Guidance]:
    """The sampler function with its options, and the guidance, of a checked section.

    run_precision: of the run's training, for sections that say no other.
    """
    return split_guidance(section, Guidance, run_precision)


def split_guidance(
    section: Mapping[str, Any], kind: Callable[..., GuidanceKind], run_precision: str = "fp32"
) -> tuple[Callable[..., Any], GuidanceKind]:
    """The same with guidance of another kind, whose options have the same names."""
    name, options = _split(section, SAMPLERS)
    guidance = kind(**{key: options.pop(key) for key in GUIDANCE_OPTIONS if key in options})
    precision = chosen_precision(section, run_precision)
    options.pop("precision", None)
    return at_precision(partial(SAMPLERS.get(name), **options), precision), guidance


def chosen_precision(section: Mapping[str, Any], run_precision: str) -> str:
    """What the network of a sampler section computes in. Raises UsageError for what is no precision."""
    return Arithmetic(section.get("precision", "run")).chosen(run_precision)


def _split(section: Mapping[str, Any], registry: Registry) -> tuple[str, dict[str, Any]]:
    options = dict(section)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise UsageError(
            f"a {registry.kind} section needs a name", fix=f"one of {', '.join(registry.names())}"
        )
    return name, options

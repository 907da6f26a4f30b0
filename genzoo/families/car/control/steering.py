"""From what a user asks for to what steers a sampling: controls, the runs they go to, and their strengths."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from genzoo.autoregression.sampling import NextScaleOptions
from genzoo.core.checkpoint import tensors_digest
from genzoo.core.errors import UsageError
from genzoo.core.types import Batch
from genzoo.families.car.control.conditions import Pictures, chosen_control
from genzoo.families.car.control.decoder import MixedDecoder, Steering
from genzoo.families.car.control.guidance import ControlGuidance
from genzoo.families.car.control.inputs import ControlEncoding
from genzoo.families.car.control.mixing import (
    Strength,
    by_extractor,
    described,
    named_controls,
    strengths_of,
)
from genzoo.families.car.control.model import CAR
from genzoo.families.car.var.bf16_copy import HalfCopy
from genzoo.families.car.var.model import VAR
from genzoo.families.car.vqvae.codec import VQVAECodec

logger = logging.getLogger(__name__)

GivenControls = Pictures | Mapping[str, Pictures]
OWN = "control"


class Controlled(Protocol):
    """A task whose model can follow a control: a NextScaleTask, which may stand for another run."""

    @property
    def model(self) -> VAR | CAR: ...

    codec: VQVAECodec
    control_dropout: float
    extract: Callable[[Tensor], Tensor] | None
    control_name: str
    encode_control: ControlEncoding
    encode_null: ControlEncoding
    half: HalfCopy

    @property
    def pixel_size(self) -> tuple[int, int]: ...


def control_conditions(
    task: Controlled,
    num: int,
    control: GivenControls | None,
    control_from: GivenControls | None,
    control_scale: Strength | Sequence[Strength] | None,
    control_runs: Mapping[str, Any] | None,
    guidance: ControlGuidance,
) -> dict[str, Any]:
    """The rows of `conditions` that say what steers; none without a control.

    A task's own control is "control"; those of other runs are "control:NAME", beside "control_models". Raises
    UsageError for controls, strengths and runs that do not go together.
    """
    runs = by_extractor(task.control_name, task, _others(task, control_runs or {}))
    given, sources = named_controls(control, list(runs)), _sources(control_from, list(runs))
    names = [name for name in runs if name in given or name in sources]
    if not names and isinstance(task.model, CAR):
        logger.info("no control was given: these samples are those of the frozen base")
    strengths = strengths_of(control_scale, len(names), len(task.codec.patch_nums))
    if names and not isinstance(task.model, CAR):
        raise UsageError("a control was given, but this model takes none", fix="use a CAR")
    guidance.require(len(names))
    if guidance.against == "grey" and not task.control_dropout:
        fix = "train it with task.control_dropout=0.1, or leave control_against out"
        raise UsageError("this run was never trained without a control", fix=fix)
    made: dict[str, Any] = {}
    for name in names:
        extract, size = runs[name].extract, task.pixel_size
        key = OWN if runs[name] is task else f"{OWN}:{name}"
        made[key] = chosen_control(num, given.get(name), sources.get(name), extract, size)
    if made and (control_scale is not None or set(made) != {OWN} or guidance != ControlGuidance()):
        made["control_scale"] = strengths.expand(num, *strengths.shape)
        made["control_strength"] = [described(strengths, names, str(guidance))] * num
        made["control_guidance"] = [guidance] * num
        made["control_models"] = [runs] * num
    return made


def steerings(
    task: Controlled, model: VAR | CAR, conditions: Batch, device: torch.device, *, half: bool
) -> list[Steering]:
    """What steers a block; controls that have no strength at any scale are not even encoded.

    model: the task's own, or a copy of it.   half: whether it is one in 16 bits, as the others' then are too.
    """
    keys = [key for key in conditions if key == OWN or key.startswith(f"{OWN}:")]
    if not keys:
        return []
    if not isinstance(model, CAR):
        raise UsageError("a control was given, but this model takes none", fix="use a CAR")
    rows = _strengths(conditions, len(keys), len(task.codec.patch_nums))
    found = []
    for key, strengths in zip(keys, rows, strict=True):
        if not any(strengths) and not guidance_of(conditions).takes_both_halves:
            continue
        other = task if key == OWN else conditions["control_models"][0][key.removeprefix(f"{OWN}:")]
        steers = model if other is task else _model_of(other, half=half)
        features = other.encode_control(steers, conditions[key].to(device))
        found.append(Steering(steers, features, strengths))
    return found


def decoder_for(
    task: Controlled, model: VAR | CAR, labels: Tensor, conditions: Batch, options: NextScaleOptions
) -> MixedDecoder:
    """What predicts scale after scale under a block's controls.   labels: (b,), or (2b,) with guidance."""
    base = model.base if isinstance(model, CAR) else model
    found = steerings(task, model, conditions, labels.device, half=options.precision == "bf16")
    weights = guidance_of(conditions).weights(
        [steering.strengths for steering in found], len(base.sizes), options.guidance_scale
    )
    alone = null_steering(task, model, conditions, labels.device)
    return MixedDecoder(base, labels, found, weights=weights, alone=alone)


def guidance_of(conditions: Batch) -> ControlGuidance:
    """How a block's controls guide."""
    rows = conditions.get("control_guidance")
    return rows[0] if rows else ControlGuidance()


def null_steering(
    task: Controlled, model: VAR | CAR, conditions: Batch, device: torch.device
) -> Steering | None:
    """The run's own model under a control that says nothing, where one is asked for.

    That is mid grey, 0 in [-1, 1]: an empty picture of edges is a control like any other.
    """
    if guidance_of(conditions).against != "grey":
        return None
    assert isinstance(model, CAR)
    grey = torch.zeros_like(conditions[OWN][:1], device=device)
    return Steering(model, task.encode_null(model, grey), ())


def _model_of(other: Controlled, *, half: bool) -> CAR:
    model = other.model
    assert isinstance(model, CAR)
    return other.half(model) if half else model


def _strengths(conditions: Batch, num_controls: int, num_scales: int) -> list[list[float]]:
    if "control_scale" not in conditions:
        return [[1.0] * num_scales] * num_controls
    rows: list[list[float]] = conditions["control_scale"][0].tolist()
    return rows


def _sources(given: GivenControls | None, names: Sequence[str]) -> dict[str, Pictures]:
    """Pictures to extract from, by extractor; one without a name is for every run."""
    if given is None or isinstance(given, Mapping):
        return named_controls(given, names)
    return dict.fromkeys(names, given)


def _others(task: Controlled, runs: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    found = {}
    for place, other in runs.items():
        _require_same_base(task, other, place)
        found[place] = (other.control_name, other)
    return found


def _require_same_base(task: Controlled, other: Any, place: str) -> None:
    """Raise UsageError unless a run's controls steer the same base on the same tokens."""
    ours, theirs = task.model, other.model
    if not isinstance(ours, CAR) or not isinstance(theirs, CAR):
        raise UsageError("controls of several runs are mixed by CARs only", where=place)
    if other.codec.fingerprint != task.codec.fingerprint:
        raise UsageError(
            "this run reads the tokens of another VQVAE", where=place, fix="name runs on one base"
        )
    if tensors_digest(dict(ours.base.state_dict())) != tensors_digest(dict(theirs.base.state_dict())):
        raise UsageError(
            "this run stands on another base than the one to be sampled",
            where=place,
            fix="name runs that were trained on the same frozen VAR",
        )

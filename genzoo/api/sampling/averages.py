"""Which weights samples were made with, and how, in words that a reader of a number needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import ChoosesSampler, SamplesAsTrained

if TYPE_CHECKING:
    from genzoo.core.types import Task
    from genzoo.training.config import TrainConfig


def sampling_in_training(task: Task, train: TrainConfig, *, averaged: bool) -> dict[str, Any]:
    """How the samples that a training makes of itself are made."""
    choosing, following = able(task, ChoosesSampler), able(task, SamplesAsTrained)
    section = dict(choosing.sampler) if choosing is not None else {}
    named = {"sampler": section.pop("name")} if "name" in section else {}
    precision = {} if following is None else {"precision": following.run_precision}
    weights = "ema" if averaged else "raw"
    return {**named, **section, **precision, "weights": weights, "average": average_of(train, weights)}


def average_of(train: TrainConfig | None, weights: str, length: float | None = None) -> str:
    """Which average the weights are, by name and length."""
    if weights == "raw":
        return "none"
    if length is not None:
        return f"power-function average of relative length {length:g}"
    if train is None or train.ema_decay is None:
        return "as stored"
    changes = "".join(f", then {decay:g} from step {step}" for step, decay in train.ema_schedule)
    grows = ", growing" if train.ema_ramp or train.ema_use_warmup else ""
    return f"exponential, decay {train.ema_decay:g}{grows}{changes}"

"""What a flow task is told beside model and data, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genzoo.core.contracts import able
from genzoo.core.contracts.parts import ChecksFlow
from genzoo.core.errors import UsageError
from genzoo.core.registry import SAMPLERS
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.flow.field import FlowGuidance, Output, VelocityField
from genzoo.diffusion.flow.paths import (
    FLOW_PREDICTIONS,
    Flow,
    FlowPrediction,
    flow_for,
    training_interval,
)
from genzoo.diffusion.flow.times import Times, build_times
from genzoo.diffusion.sections import merge_sampler, split_guidance

PORT = "flow"  # of the losses and samplers that flow tasks take
DEFAULT_SAMPLER = {"name": "flow_dpm_solver_pp", "steps": 25, "stochastic": True}


@dataclass(frozen=True)
class FlowSettings:
    """path: "linear", "gvp" or "vp".   prediction: what the network says.   times: density of training times.

    time_scale: what t in [0, 1] is multiplied by before the network sees it. 1000 tells neighbouring times
    apart as a diffusion's timesteps are; SiT's released weights want 1.   num_tokens: of the model's input.
    """

    flow: Flow
    prediction: FlowPrediction
    times: Times
    time_scale: float
    num_tokens: int

    def with_noise(
        self, clean: Mapping[str, Any], generator: SampleStreams, level: Tensor | None = None
    ) -> dict[str, Any]:
        """A clean batch with "times" (b,) and "noise", each sample's from its own stream.

        level: (b,) in [0, 1), noise first, in place of times that are drawn.
        """
        latents = clean["latents"]
        drawn = self.times.draw(generator, self.num_tokens) if level is None else level
        times = self.within_range(drawn).to(latents)
        return {**clean, "times": times, "noise": generator.randn_like(latents)}

    def density(self, level: Tensor) -> Tensor:
        """How often training meets these times (b,), relative to meeting all alike."""
        return self.times.density(level, self.num_tokens)

    def field(self, output: Output, channel_axis: int = 1) -> VelocityField:
        """Of a network's guided output."""
        return VelocityField(
            output,
            self.flow,
            prediction=self.prediction,
            time_scale=self.time_scale,
            channel_axis=channel_axis,
        )

    def within_range(self, t: Tensor) -> Tensor:
        """t in [0, 1] moved into the range that the prediction is trained on."""
        low, high = training_interval(self.flow.path, self.prediction)
        return low + (high - low) * t

    def seen(self, times: Tensor) -> Tensor:
        """What the network is fed."""
        return (self.time_scale * times).to(torch.float32)


def flow_sampler(section: Mapping[str, Any] | None, flow: Flow) -> dict[str, Any]:
    """A sampler section, the usual one for None. Raises UsageError when it cannot sample this flow, before
    anything is trained."""
    section = merge_sampler(DEFAULT_SAMPLER if section is None else section, {}, port=PORT)
    split_guidance(section, FlowGuidance)
    checking = able(SAMPLERS.get(str(section["name"])), ChecksFlow)
    if checking is not None:
        checking.check_flow(flow, section)
    return section


def flow_settings(
    path: str,
    prediction: FlowPrediction,
    times: str | Mapping[str, Any] | Times | None,
    time_scale: float,
    num_tokens: int,
) -> FlowSettings:
    """Raises UsageError for an unknown path or prediction, impossible times, a scale that is not positive."""
    if prediction not in FLOW_PREDICTIONS:
        raise UsageError(
            f"a flow predicts no {prediction!r}", where="task.prediction", fix=", ".join(FLOW_PREDICTIONS)
        )
    if not time_scale > 0:
        raise UsageError(f"time_scale is {time_scale}", where="task.time_scale", fix="use 1000, or 1 for SiT")
    chosen = build_times(times if times is None or isinstance(times, (str, Times)) else dict(times))
    settings = FlowSettings(flow_for(path, prediction), prediction, chosen, float(time_scale), num_tokens)
    chosen.factor(num_tokens)
    return settings

"""What flow samplers call: a network with its conditions and guidance, seen as a velocity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genzoo.core.errors import UsageError
from genzoo.diffusion.flow.paths import Flow, FlowPrediction, velocity_from
from genzoo.diffusion.guidance import check_cfg_channels, doubled_output
from genzoo.diffusion.process import split_output
from genzoo.diffusion.prompted import Prompted, prompted_output

Output = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class FlowGuidance:
    """How strongly samples of a flow follow their conditions.

    guidance_scale: 1 samples the conditional model as it is, above 1 exaggerates, 0 ignores the condition.
    cfg_channels: which of the predicted channels are guided, "all" or the first few; the others stay
        conditional. SiT's released code guides 3 of its 4.
    guidance_interval: (lowest, highest) noise share to guide at, such as (0.0, 0.89); outside, the
        conditional model alone is used (Kynkäänniemi et al. 2024). None guides everywhere.
    """

    guidance_scale: float = 1.0
    cfg_channels: int | Literal["all"] = "all"
    guidance_interval: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_cfg_channels(self.cfg_channels)
        interval = self.guidance_interval
        if interval is None:
            return
        if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
            raise UsageError(
                f"guidance_interval is {list(interval)!r}, and a flow has no numbered timesteps",
                fix="use [lowest, highest] noise share between 0 and 1, such as [0.0, 0.89]",
            )

    def active(self, noise_share: float) -> bool:
        """Whether the unconditional model is needed at this noise share."""
        low, high = self.guidance_interval or (0.0, 1.0)
        return self.guidance_scale != 1.0 and low <= noise_share <= high


class VelocityField:
    """(x_t, t) -> velocity, channels on axis 1.

    output: (x_t, what the network is fed for t, noise share) -> prediction, guided; x_t has its channels on
    `channel_axis`.   time_scale: what t is multiplied by for the network.
    """

    def __init__(
        self,
        output: Output,
        flow: Flow,
        *,
        prediction: FlowPrediction,
        time_scale: float,
        channel_axis: int = 1,
    ) -> None:
        self.output, self.flow, self.prediction = output, flow, prediction
        self.time_scale, self.channel_axis = time_scale, channel_axis

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """x: (b, c, ...) channels first.   Returns its shape and dtype."""
        x_t = torch.movedim(x, 1, self.channel_axis)
        seen = torch.full((len(x),), self.time_scale * t, device=x.device, dtype=torch.float32)
        output = self.output(x_t, seen, 1 - t).to(x_t.dtype)
        predicted, _ = split_output(
            output, x_t, self.channel_axis
        )  # a variance that nobody trained is left out
        velocity = velocity_from(self.prediction, x_t, predicted, self.flow.at(t, x_t))
        return torch.movedim(velocity, self.channel_axis, 1)


def class_output(
    model: nn.Module, class_labels: Tensor | None, null_label: int, guidance: FlowGuidance, channel_axis: int
) -> Output:
    """The guided output of a model of classes, or the plain one of a model without."""
    dtype = next(model.parameters()).dtype
    # a model kept in half precision sees half-precision input; the chain itself stays in float32
    half = dtype if dtype in (torch.float16, torch.bfloat16) else None

    def output(x_t: Tensor, seen: Tensor, noise_share: float) -> Tensor:
        x_t = x_t.to(half or x_t.dtype)
        if class_labels is None or not guidance.active(noise_share):
            plain: Tensor = model(x_t, seen, class_labels)
            return plain
        options: dict[str, Any] = {"cfg_channels": guidance.cfg_channels, "channel_axis": channel_axis}
        return doubled_output(model, x_t, seen, class_labels, null_label, guidance.guidance_scale, **options)

    return output


def prompt_output(model: Prompted, text: Any, negative: Any, guidance: FlowGuidance) -> Output:
    """The guided output of a model of prompts.   text, negative: features with one row per sample."""

    def output(x_t: Tensor, seen: Tensor, noise_share: float) -> Tensor:
        against = negative if guidance.active(noise_share) else None
        return prompted_output(
            model, x_t, seen, text, against, guidance.guidance_scale, cfg_channels=guidance.cfg_channels
        )

    return output

"""Classifier-free guidance (Ho & Salimans 2022): one doubled batch, and nothing extra when the scale is 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genzoo.core.errors import UsageError

ConditionalModel = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Guidance:
    """How strongly samples follow their labels.

    guidance_scale: 1 samples the conditional model as it is, above 1 exaggerates, 0 ignores the labels.
    cfg_channels: which of the predicted channels are guided, "all" or the first few (the released DiT code
        guides 3 of its 4 latent channels). Variance channels are never guided.
    guidance_interval: (lowest, highest) training timestep to guide at; outside, the conditional model alone
        is used (Kynkäänniemi et al. 2024). None guides everywhere.
    """

    guidance_scale: float = 1.0
    cfg_channels: int | Literal["all"] = "all"
    guidance_interval: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_cfg_channels(self.cfg_channels)
        interval = self.guidance_interval
        if interval is not None and (len(interval) != 2 or interval[0] > interval[1]):
            raise UsageError(
                f"guidance_interval is {interval!r}", fix="use [lowest, highest] timestep, such as [100, 700]"
            )

    def active(self, timesteps: Tensor) -> bool:
        """Whether a step at these training timesteps, all equal, needs the null-label half."""
        if self.guidance_scale == 1.0 or self.guidance_interval is None:
            # without an interval the timesteps stay unread: looking would wait for an accelerator's queue
            return self.guidance_scale != 1.0
        low, high = self.guidance_interval
        return low <= int(timesteps[0]) <= high


def check_cfg_channels(cfg_channels: int | str) -> None:
    """Raise UsageError unless it is "all" or a number of channels."""
    if cfg_channels != "all" and (not isinstance(cfg_channels, int) or cfg_channels < 1):
        raise UsageError(
            f"cfg_channels is {cfg_channels!r}", fix='use "all" or a number of channels, such as 3'
        )


def guided_output(
    model: ConditionalModel,
    x_t: Tensor,
    timesteps: Tensor,
    class_labels: Tensor,
    null_label: int,
    guidance: Guidance,
    *,
    channel_axis: int = 1,
) -> Tensor:
    """Model output at x_t under guidance; the batch is doubled as [labels | null] and evaluated once.

    x_t: (b, c, ...).   timesteps: (b,), all equal, as in a sampler.   class_labels: (b,).   Returns (b, c
    or 2c, ...).
    """
    if not guidance.active(timesteps):
        return model(x_t, timesteps, class_labels)
    return doubled_output(
        model,
        x_t,
        timesteps,
        class_labels,
        null_label,
        guidance.guidance_scale,
        cfg_channels=guidance.cfg_channels,
        channel_axis=channel_axis,
    )


def doubled_output(
    model: ConditionalModel,
    x_t: Tensor,
    timesteps: Tensor,
    class_labels: Tensor,
    null_label: int,
    guidance_scale: float,
    *,
    cfg_channels: int | Literal["all"] = "all",
    channel_axis: int = 1,
) -> Tensor:
    """The same where guidance acts for sure; timesteps may be fractional."""
    null = torch.full_like(class_labels, null_label)
    both = model(torch.cat([x_t, x_t]), torch.cat([timesteps, timesteps]), torch.cat([class_labels, null]))
    # float32: the difference of two bfloat16 outputs, magnified, would show its rounding
    conditional, unconditional = both.to(torch.promote_types(both.dtype, torch.float32)).chunk(2)
    return combine(
        conditional,
        unconditional,
        guidance_scale,
        num_channels=x_t.shape[channel_axis],
        cfg_channels=cfg_channels,
        channel_axis=channel_axis,
    )


def combine(
    conditional: Tensor,
    unconditional: Tensor,
    guidance_scale: float,
    *,
    num_channels: int,
    cfg_channels: int | Literal["all"] = "all",
    channel_axis: int = 1,
) -> Tensor:
    """unconditional + guidance_scale * (conditional - unconditional); the unguided channels are conditional.

    conditional, unconditional: (b, c or 2c, ...).   num_channels: c, the predicted ones.   cfg_channels:
    "all" c, or fewer.   Returns the shape of `conditional`.
    """
    guided = num_channels if cfg_channels == "all" else cfg_channels
    if guided > num_channels:
        raise UsageError(f"cfg_channels is {guided} but the model predicts {num_channels} channels")
    sizes = [guided, conditional.shape[channel_axis] - guided]
    kept, rest = torch.split(conditional, sizes, channel_axis)
    base = unconditional.narrow(channel_axis, 0, guided)
    return torch.cat([base + guidance_scale * (kept - base), rest], channel_axis)

"""How a base noises pictures in training, by the scheduler that it is sampled with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.process import q_sample
from genzoo.diffusion.prompted import Diffusion, schedule_from, training_target


class NoisePath(Protocol):
    """Levels (b,) are what the base's scheduler calls timesteps."""

    def levels(self, streams: SampleStreams) -> Tensor: ...
    def noised(self, x_0: Tensor, noise: Tensor, levels: Tensor) -> Tensor: ...
    def target(self, x_0: Tensor, noise: Tensor, levels: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class GaussianPath:
    """Of DDPM: x_t = sqrt(alpha-bar) x_0 + sqrt(1 - alpha-bar) noise, timesteps drawn evenly."""

    diffusion: Diffusion

    def levels(self, streams: SampleStreams) -> Tensor:
        """(b,) int64."""
        return streams.randint(len(self.diffusion.schedule.betas))

    def noised(self, x_0: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """x_t; all (b, ...)."""
        return q_sample(x_0, noise, levels, self.diffusion.schedule)

    def target(self, x_0: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """The noise, or v."""
        return training_target(x_0, noise, levels, self.diffusion)


@dataclass(frozen=True)
class StraightPath:
    """Of flow matching: x = (1 - s) x_0 + s noise, whose velocity is noise - x_0.

    s is drawn logit-normally (Esser et al. 2024), then shifted as the scheduler shifts its own:
    shift s / (1 + (shift - 1) s).   num_timesteps: what the scheduler multiplies s by.
    """

    num_timesteps: int = 1000
    shift: float = 1.0

    def levels(self, streams: SampleStreams) -> Tensor:
        """(b,) float32 in (0, num_timesteps)."""
        s = torch.sigmoid(streams.randn_like(torch.zeros(len(streams))))
        return self.num_timesteps * self.shift * s / (1 + (self.shift - 1) * s)

    def noised(self, x_0: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """Between picture and noise; all (b, ...)."""
        s = (levels / self.num_timesteps).to(x_0).reshape(-1, *[1] * (x_0.ndim - 1))
        return (1 - s) * x_0 + s * noise

    def target(self, x_0: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """noise - x_0."""
        return noise - x_0


def path_of(scheduler: Mapping[str, Any]) -> NoisePath:
    """Of a scheduler's config. Raises WeightsError for a prediction that is not known."""
    kind, name = scheduler.get("prediction_type"), str(scheduler.get("_class_name", ""))
    if kind == "flow_prediction" or name.startswith("FlowMatch"):
        shift = scheduler.get("flow_shift", scheduler.get("shift")) or 1.0
        return StraightPath(int(scheduler.get("num_train_timesteps", 1000)), float(shift))
    return GaussianPath(schedule_from(scheduler))

"""The exact velocity of data that are normal, and streams that hand out recorded noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from genzoo.diffusion.flow.paths import Flow


def gaussian_velocity(flow: Flow, mean: Tensor, std: Tensor) -> Callable[[Tensor, float], Tensor]:
    """d_alpha m + (d_alpha alpha s^2 + d_sigma sigma) / S^2 (x - alpha m) for N(m, s^2), S^2 that of x_t."""

    def velocity(x: Tensor, t: float) -> Tensor:
        c = flow.at(t, x)
        total = c.alpha**2 * std**2 + c.sigma**2
        slope = (c.d_alpha * c.alpha * std**2 + c.d_sigma * c.sigma) / total
        return c.d_alpha * mean + slope * (x - c.alpha * mean)

    return velocity


def gaussian_flow_map(flow: Flow, mean: Tensor, std: Tensor, x: Tensor, start: float, end: float) -> Tensor:
    """Where x at `start` is at `end`, exactly."""
    before, after = flow.at(start, x), flow.at(end, x)

    def spread(c: object) -> Tensor:
        return torch.sqrt(c.alpha**2 * std**2 + c.sigma**2)  # type: ignore[attr-defined]

    return after.alpha * mean + spread(after) / spread(before) * (x - before.alpha * mean)


class RecordedNoise:
    """Stands for the samples' streams, and hands out recorded noise in order."""

    def __init__(self, noise: Iterable[Tensor]) -> None:
        self.rows = iter(noise)

    def randn_like(self, x: Tensor) -> Tensor:
        return next(self.rows).to(x)

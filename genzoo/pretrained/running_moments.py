"""Mean and deviation of each channel over any number of latents, in one pass (Chan et al. 1979)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class RunningMoments:
    """count: values of each channel so far.   mean, squares: (c,) float64; of deviations from the mean."""

    count: int = 0
    mean: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, latents: Tensor) -> None:
        """Take in latents (b, c, h, w) or (b, f, c, h, w)."""
        values = torch.movedim(latents.detach().cpu().double(), -3, 0).flatten(1)
        added, mean = values.shape[1], values.mean(dim=1)
        squares = (values - mean[:, None]).square().sum(dim=1)
        total, gap = self.count + added, mean - self.mean
        self.squares = self.squares + squares + gap.square() * self.count * added / total
        self.mean = self.mean + gap * added / total
        self.count = total

    @property
    def std(self) -> Tensor:
        """(c,), over the number less one."""
        return (torch.as_tensor(self.squares) / (self.count - 1)).sqrt()

"""How a token map is smoothed before it is added: one convolution, one per scale, or some shared."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

# below this share the refinement is the identity and has no parameters
SMALLEST_RATIO = 1e-6


def phi_index(scale: int, num_scales: int, num_phis: int) -> int:
    """Which of the shared refinements serves a scale.

    The nearest tick in float64: for 4 phis and 10 scales two scales are exact ties, which rounding decides.
    """
    edge = 1 / 3 / num_phis if num_phis == 4 else 1 / 2 / num_phis
    ticks = np.linspace(edge, 1 - edge, num_phis)
    ratio = scale / (num_scales - 1) if num_scales > 1 else 0.0
    return int(np.argmin(np.abs(ticks - ratio)))


class Refinement(nn.Module):
    """phi(h) = (1 - r) h + r conv(h), with one convolution, one per scale, or some shared between neighbours.

    share: 1 a single one; n >= 2 so many, shared; 0 one for each scale.
    """

    def __init__(self, channels: int, *, ratio: float, share: int, num_scales: int) -> None:
        super().__init__()
        self.ratio, self.share = abs(ratio), share
        self.num_phis = num_scales if share == 0 else share
        self.is_identity = self.ratio <= SMALLEST_RATIO
        if self.is_identity:
            return
        convolutions = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(self.num_phis)]
        if share == 1:
            self.qresi = convolutions[0]
        elif share == 0:
            for index, convolution in enumerate(convolutions):
                self.add_module(str(index), convolution)
        else:
            self.qresi_ls = nn.ModuleList(convolutions)

    def forward(self, h: Tensor, scale: int, num_scales: int) -> Tensor:
        """(b, c, h, w) -> the same shape."""
        if self.is_identity:
            return h
        return h * (1 - self.ratio) + self.convolution(scale, num_scales)(h) * self.ratio

    def convolution(self, scale: int, num_scales: int) -> nn.Module:
        """The one that serves a scale."""
        if self.share == 1:
            return self.qresi
        index = phi_index(scale, num_scales, self.num_phis)
        return self.get_submodule(str(index)) if self.share == 0 else self.qresi_ls[index]

"""A depthwise 2-d convolution over the tokens of a picture that starts as the identity (DiG, CVPR 2025)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from genzoo.core.errors import UsageError


class DepthwiseConv2d(nn.Module):
    """Each channel with its neighbours in the plane, zeros outside; a fresh one returns its input as it is.

    grid: height and width of the row-major tokens.   kernel: side, odd. Tokens in front of the grid, such as
    a class token, pass by.
    """

    def __init__(self, channels: int, grid: tuple[int, int], *, kernel: int = 3) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise UsageError(
                f"a convolution of side {kernel} has no centre", fix="use an odd side, such as 3"
            )
        self.grid = grid
        self.weight = nn.Parameter(torch.zeros(channels, 1, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels))
        with torch.no_grad():
            self.weight[:, :, kernel // 2, kernel // 2] = 1.0

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (b, f + h w, d), f in front, row-major.   Returns the same shape."""
        height, width = self.grid
        front, rest = tokens[:, : -height * width], tokens[:, -height * width :]
        plane = rest.transpose(1, 2).unflatten(2, self.grid)
        padding = self.weight.shape[-1] // 2
        plane = conv2d(plane, self.weight, self.bias, padding=padding, groups=len(self.weight))
        mixed = plane.flatten(2).transpose(1, 2)
        return torch.cat([front, mixed], dim=1) if front.shape[1] else mixed

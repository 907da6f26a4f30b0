"""The parts of the control branch: what reads the control (F), carries it (T), and lets it in (G)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from genzoo.families.car.control.convolutions import convolve_maps
from genzoo.families.car.var.blocks import NORM_EPS

CONTROL_CHANNELS = (64, 128, 256, 512, 1024)


class ControlEncoder(nn.Module):
    """F: 3x3 convolutions from a control picture to one feature per token, the same for all scales.

    channels: of each resolution; every step but the last halves the size.
    """

    def __init__(self, hidden_size: int, channels: Sequence[int] = CONTROL_CHANNELS) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in pairwise(channels):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(channels[-1], hidden_size, 3, padding=1)

    def forward(self, control: Tensor) -> Tensor:
        """(b, 3, factor h, factor w) in [-1, 1] -> (b, d, h, w)."""
        x = silu(self.conv_in(control))
        for block in self.blocks:
            x = silu(block(x))
        output: Tensor = self.conv_out(x)
        return output

    def all_scales(self, controls: Sequence[Tensor]) -> list[Tensor]:
        """`forward` of the controls of all scales, where `read_together` says that they go together."""
        maps = convolve_maps(controls, self.conv_in)
        for layer in (*self.blocks, self.conv_out):
            assert isinstance(layer, nn.Conv2d)
            maps = convolve_maps([silu(map_) for map_ in maps], layer)
        return maps


class ConvolutionBlock(nn.Module):
    """T without attention: two 3x3 convolutions in a residual stream, as large as a transformer block."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(hidden_size, hidden_size, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden_size, hidden_size, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, d, h, w) -> the same shape."""
        output: Tensor = x + self.conv2(silu(self.conv1(silu(x))))
        return output


class CrossNorm(nn.Module):
    """G of ControlNeXt: the control's output, normalised by the statistics of what it is added to.

    Statistics are each token's own, over its channels: over the sequence they would change with every scale
    that sampling adds, and differ from those of training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, control: Tensor) -> Tensor:
        """x, control: (b, l, d) -> (b, l, d)."""
        variance, mean = torch.var_mean(x.float(), dim=-1, keepdim=True, correction=0)
        normalised = (control.float() - mean) * torch.rsqrt(variance + NORM_EPS)
        return x + (self.gamma * normalised).to(x.dtype)


def concat_norm_linear(x: Tensor, control: Tensor, norm: nn.LayerNorm, project: nn.Module) -> Tensor:
    """G of the paper: both side by side, normalised in float32, projected back to one width.   (b, l, d)."""
    both = torch.cat([x, control.to(x.dtype)], dim=-1)
    if both.dtype == norm.weight.dtype:  # the norm's own sums are in float32 whatever the type
        same: Tensor = project(norm(both))
        return same
    weight, bias = norm.weight.float(), norm.bias.float()
    normed = layer_norm(both.float(), norm.normalized_shape, weight, bias, norm.eps)
    output: Tensor = project(normed.to(both.dtype))
    return output

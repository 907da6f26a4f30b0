"""Canny edges: a control that needs no weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, pad

from genzoo.core.controls import control_fingerprint
from genzoo.core.errors import ShapeError, UsageError
from genzoo.pictures.pixels import nearest_levels

# tan(22.5 degrees) in 1/2^15, as fixed-point edge detectors have it
TAN_22 = 13573
SHIFT = 15


def canny(pixels: Tensor, *, low: int = 100, high: int = 200) -> Tensor:
    """Canny edges in white on black, with the conventions of OpenCV's `Canny(picture, low, high)`.

    pixels: (b, 3, h, w) in [-1, 1].   low, high: thresholds of |dx| + |dy| of 8-bit levels under 3x3 Sobel
    filters, in the channel where it is largest. Weak edges stay where they touch strong ones. Returns (b, 3,
    h, w), -1 or 1.
    """
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ShapeError(f"pixels are {tuple(pixels.shape)}; (b, 3, h, w) is expected")
    if not 0 <= low <= high:
        raise UsageError(f"thresholds of canny are {low} and {high}", fix="use 0 <= low <= high")
    levels = nearest_levels(pixels)
    d_x, d_y = _gradient(levels)
    edges = _join(*_thin(d_x, d_y, low, high))
    return (edges[:, None].to(pixels.dtype) * 2 - 1).expand(-1, 3, -1, -1).contiguous()


class Canny:
    """Canny edges of whole pictures.   low, high: as in `canny`."""

    channels = 1

    def __init__(self, *, low: int = 100, high: int = 200) -> None:
        if not 0 <= low <= high:
            raise UsageError(f"thresholds of canny are {low} and {high}", fix="use 0 <= low <= high")
        self.low, self.high = low, high
        self.fingerprint = control_fingerprint("canny", low=low, high=high)

    def to(self, device: torch.device | str) -> None:
        """There is nothing to move."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] -> edges of that shape, -1 or 1."""
        return canny(pixels, low=self.low, high=self.high)


def _gradient(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel derivatives, (b, h, w) each, of the channel with the largest |dx| + |dy|; the first of equals."""
    smooth = torch.tensor([1.0, 2.0, 1.0], device=levels.device)
    slope = torch.tensor([-1.0, 0.0, 1.0], device=levels.device)
    kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])[:, None]
    b, c, h, w = levels.shape
    padded = pad(levels.reshape(b * c, 1, h, w), (1, 1, 1, 1), mode="replicate")
    both = conv2d(padded, kernels).view(b, c, 2, h, w)
    strongest = both.abs().sum(dim=2).argmax(dim=1)[:, None, None].expand(-1, 1, 2, -1, -1)
    d_x, d_y = both.gather(1, strongest)[:, 0].unbind(1)
    return d_x, d_y


def _thin(d_x: Tensor, d_y: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Weak and strong edges, (b, h, w) bool: above a threshold, and a ridge across their direction."""
    strength = d_x.abs() + d_y.abs()
    around = pad(strength, (1, 1, 1, 1))
    h, w = strength.shape[-2:]

    def at(down: int, right: int) -> Tensor:
        return around[:, 1 + down : 1 + down + h, 1 + right : 1 + right + w]

    x, y = d_x.abs().long(), d_y.abs().long() << SHIFT
    flat, steep = y < x * TAN_22, y > x * TAN_22 + (x << (SHIFT + 1))
    along_row = (strength > at(0, -1)) & (strength >= at(0, 1))
    along_column = (strength > at(-1, 0)) & (strength >= at(1, 0))
    falling = (strength > at(-1, -1)) & (strength > at(1, 1))
    rising = (strength > at(-1, 1)) & (strength > at(1, -1))
    diagonal = torch.where((d_x < 0) != (d_y < 0), rising, falling)
    ridge = torch.where(flat, along_row, torch.where(steep, along_column, diagonal))
    return ridge & (strength > low), ridge & (strength > high)


def _join(weak: Tensor, strong: Tensor) -> Tensor:
    """Weak edges that are connected to strong ones, diagonals included."""
    edges = strong
    while True:
        grown = (max_pool2d(edges[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0) & weak
        if torch.equal(grown, edges):
            return edges
        edges = grown

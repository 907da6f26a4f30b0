"""Canny edges: a control that needs no weights."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

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
    levels = nearest_levels(pixels).byte()
    # one by one: a batch of photographs at once would take gigabytes
    edges = torch.stack([canny_edges(picture, low=low, high=high) for picture in levels])
    return (edges[:, None].to(pixels.dtype) * 2 - 1).expand(-1, 3, -1, -1).contiguous()


def canny_edges(levels: Tensor, *, low: int = 100, high: int = 200) -> Tensor:
    """The edges (h, w), bool, of one picture (c, h, w) uint8; found by OpenCV where it is there."""
    opencv = _opencv() if levels.device.type == "cpu" else None
    if opencv is None:
        return _edges(levels, low, high)
    found = opencv.Canny(levels.movedim(0, -1).contiguous().numpy(), low, high)
    return torch.from_numpy(found) > 0


@cache
def _opencv() -> Any | None:
    """The package cv2, some thirty times faster, if it is installed and agrees bit for bit."""
    try:
        cv2 = import_module("cv2")
    except ImportError:
        return None
    sample = torch.randint(0, 256, (3, 31, 37), generator=torch.Generator().manual_seed(0)).byte()
    sample[:, 9:20, 5:30] //= 4
    theirs = cv2.Canny(sample.movedim(0, -1).contiguous().numpy(), 300, 700)
    return cv2 if torch.equal(torch.from_numpy(theirs) > 0, _edges(sample, 300, 700)) else None


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


def _edges(levels: Tensor, low: int, high: int) -> Tensor:
    d_x, d_y = _gradient(levels)
    return _join(*_thin(d_x, d_y, low, high))


def _gradient(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel derivatives, (h, w) int16, of the channel with the largest |dx| + |dy|; the first of equals."""
    around = pad(levels[None].float(), (1, 1, 1, 1), mode="replicate")[0].short()
    across = around[:, :-2] + 2 * around[:, 1:-1] + around[:, 2:]
    down = around[..., :-2] + 2 * around[..., 1:-1] + around[..., 2:]
    slopes_x, slopes_y = across[..., 2:] - across[..., :-2], down[:, 2:] - down[:, :-2]
    d_x, d_y = slopes_x[0], slopes_y[0]
    for other_x, other_y in zip(slopes_x[1:], slopes_y[1:], strict=True):
        stronger = other_x.abs() + other_y.abs() > d_x.abs() + d_y.abs()
        d_x, d_y = torch.where(stronger, other_x, d_x), torch.where(stronger, other_y, d_y)
    return d_x, d_y


def _thin(d_x: Tensor, d_y: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Weak and strong edges, (h, w) bool: above a threshold, and a ridge across their direction."""
    strength = d_x.abs() + d_y.abs()
    around = pad(strength, (1, 1, 1, 1))
    h, w = strength.shape

    def at(down: int, right: int) -> Tensor:
        return around[1 + down : 1 + down + h, 1 + right : 1 + right + w]

    x, y = d_x.abs().int(), d_y.abs().int() << SHIFT
    flat, steep = y < x * TAN_22, y > x * TAN_22 + (x << (SHIFT + 1))
    along_row = (strength > at(0, -1)) & (strength >= at(0, 1))
    along_column = (strength > at(-1, 0)) & (strength >= at(1, 0))
    falling = (strength > at(-1, -1)) & (strength > at(1, 1))
    rising = (strength > at(-1, 1)) & (strength > at(1, -1))
    diagonal = torch.where((d_x < 0) != (d_y < 0), rising, falling)
    ridge = torch.where(flat, along_row, torch.where(steep, along_column, diagonal))
    return ridge & (strength > low), ridge & (strength > high)


def _join(weak: Tensor, strong: Tensor) -> Tensor:
    """Weak edges that are connected to strong ones, diagonals included; each pixel is looked at once."""
    height, width = weak.shape
    waiting, edges = (pad(part, (1, 1, 1, 1)).flatten() for part in (weak & ~strong, strong))
    row = width + 2
    offsets = torch.tensor([-row - 1, -row, -row + 1, -1, 1, row - 1, row, row + 1], device=weak.device)
    reached = edges.nonzero()
    while len(reached):
        near = (reached + offsets).flatten()
        reached = near[waiting[near]].unique()[:, None]
        edges[reached], waiting[reached] = True, False
    return edges.view(height + 2, row)[1:-1, 1:-1].contiguous()

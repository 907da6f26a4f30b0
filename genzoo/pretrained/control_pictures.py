"""What extractors with a network share: the size they look at, and grey maps as control pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from genzoo.core.errors import ShapeError, UsageError

TINY = 1e-6


def check_pixels(pixels: Tensor) -> None:
    """Raise ShapeError unless these are pictures (b, 3, h, w)."""
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ShapeError(f"pixels are {tuple(pixels.shape)}; (b, 3, h, w) is expected")


def check_resolution(resolution: int | None, multiple: int) -> None:
    """Raise UsageError for a size that no network can look at."""
    if resolution is not None and resolution < multiple:
        raise UsageError(f"resolution is {resolution}", fix=f"use {multiple} or more, or null")


def looked_at(
    pixels: Tensor,
    resolution: int | None,
    multiple: int,
    compute: Callable[[Tensor], Tensor],
    *,
    square: bool = False,
) -> Tensor:
    """A map of pictures, computed at another size and brought back.

    pixels: (b, 3, h, w) in [-1, 1].   resolution: of the short side; None leaves the size alone but for
    `multiple`, which both sides are rounded to.   square: both sides get the short side's length.   compute:
    (b, 3, h', w') -> (b, c, h'', w''). Returns (b, c, h, w).
    """
    check_pixels(pixels)
    size = pixels.shape[-2:]
    scale = 1.0 if resolution is None else resolution / min(size)
    sides = [max(1, round(side * scale / multiple)) * multiple for side in size]
    sides = [min(sides)] * 2 if square else sides
    return resized(compute(resized(pixels.float(), sides)), list(size))


def resized(x: Tensor, size: list[int]) -> Tensor:
    """Bilinear, over areas where it gets smaller."""
    if list(x.shape[-2:]) == size:
        return x
    return interpolate(x, size=size, mode="bilinear", antialias=True)


def as_control(levels: Tensor) -> Tensor:
    """Levels (b, 1 or 3, h, w) in 0..255 as controls (b, 3, h, w): 8 bits, in [-1, 1]."""
    rounded = levels.round().clamp(0, 255) / 127.5 - 1
    return rounded.expand(-1, 3, -1, -1).contiguous()


def spread(maps: Tensor) -> Tensor:
    """Each map (b, 1, h, w) from its least to its largest value as 0..255; a constant one is 0."""
    low, high = maps.amin(dim=(1, 2, 3), keepdim=True), maps.amax(dim=(1, 2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp(min=TINY) * 255


def one_by_one(pixels: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Pictures through a network one at a time: the result of one does not depend on its batch."""
    with torch.no_grad():
        return torch.cat([compute(picture[None]) for picture in pixels])

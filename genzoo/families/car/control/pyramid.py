"""The control picture at the size of every scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from genzoo.core.errors import ShapeError


def control_pyramid(control: Tensor, sizes: Sequence[tuple[int, int]], *, exact: bool = True) -> list[Tensor]:
    """The control resized to each of `sizes`, as (b, 3, h_k, w_k) float32 in [-1, 1].

    control: (b, 3, h, w), uint8 or float in [-1, 1].   exact: by Pillow's bicubic filter, bit for bit what
    the released weights were trained on; otherwise on the control's device, where a few pixels are one step
    of 255 off.
    """
    if control.ndim != 4 or control.shape[1] != 3:
        raise ShapeError(
            f"control is {tuple(control.shape)}; (b, 3, h, w) is expected",
            fix="repeat a single channel three times",
        )
    resize = _pillow if exact else _two_passes
    return [as_signed(resize(as_bytes(control), size)).to(control.device) for size in sizes]


def as_bytes(pixels: Tensor) -> Tensor:
    """Float pixels in [-1, 1] as uint8; uint8 as they are."""
    return pixels if pixels.dtype == torch.uint8 else _rounded((pixels.float() + 1) * 127.5).byte()


def as_signed(pixels: Tensor) -> Tensor:
    """Pixels in 0..255 as float32 in [-1, 1]."""
    return pixels.float() / 255 * 2 - 1


def _pillow(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    pictures = pixels.movedim(1, -1).cpu().numpy()
    resized = [
        Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BICUBIC) for picture in pictures
    ]
    return (
        torch.from_numpy(np.stack([np.asarray(picture) for picture in resized])).movedim(-1, 1).contiguous()
    )


def _two_passes(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pillow's way: along the rows, rounded to 8 bits, then along the columns."""
    wide = interpolate(pixels.float(), size=(pixels.shape[2], size[1]), mode="bicubic", antialias=True)
    return _rounded(interpolate(_rounded(wide), size=size, mode="bicubic", antialias=True))


def _rounded(levels: Tensor) -> Tensor:
    return levels.round().clamp(0, 255)

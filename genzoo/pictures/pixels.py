"""Between numbers in [-1, 1] and 8-bit levels, and from levels to pictures and files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import torch
from einops import rearrange

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo
    from torch import Tensor

HALF = 127.5  # half of the range 0..255


def to_uint8(pixels: Tensor) -> Tensor:
    """Samples in [-1, 1] to 0..255 as the DiT sampler rounds: clamp(127.5 x + 128, 0, 255)."""
    return (pixels.float() * HALF + 128).clamp(0, 255).to(torch.uint8)


def nearest_levels(pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] to the nearest whole levels 0..255, halves to the even one; still float.

    The way back of `from_uint8`, and the rounding of all that is no sample: controls, pictures of data.
    """
    return ((pixels.float() + 1) * HALF).round().clamp(0, 255)


def from_uint8(levels: Tensor) -> Tensor:
    """Levels 0..255 to float32 in [-1, 1]."""
    return levels.to(torch.float32, copy=True).div_(HALF).sub_(1)


def to_pil(image: Tensor) -> Image:
    """(c, h, w) uint8 with c = 1 or 3 to a PIL picture."""
    from PIL import Image

    array = rearrange(image, "c h w -> h w c").contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def png(image: Image, *, pnginfo: PngInfo | None = None) -> bytes:
    """The picture as PNG; the same bytes for the same pixels."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=pnginfo)
    return buffer.getvalue()

"""Pictures to tensors: the centre crop of ADM, the horizontal flip, and the range [-1, 1]."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from genzoo.core.errors import DataError
from genzoo.core.sizes import Size, sides
from genzoo.data.image_decode import MAX_PIXELS
from genzoo.pictures.pixels import from_uint8


def size_name(size: Size) -> str:
    """As fingerprints and cache keys write it: "32", or "32x64" where height and width differ."""
    height, width = sides(size)
    return str(height) if height == width else f"{height}x{width}"


def adm_centre_crop(image: Image.Image, size: Size) -> Image.Image:
    """The centre of a picture, as ADM and DiT cut it, and by the same rule where height and width differ.

    The picture is halved (box filter) while both sides are at least twice those asked for, brought to the
    smallest size that covers them (bicubic) and cropped. Raises DataError for a picture so long that the
    resized strip would not fit in memory.
    """
    height, width = sides(size)
    while image.width >= 2 * width and image.height >= 2 * height:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = max(width / image.width, height / image.height)
    full = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    if full[0] * full[1] > MAX_PIXELS:
        raise DataError(
            f"a picture of {image.width} x {image.height} is too long to be cut to {width} x {height}"
        )
    image = image.resize(full, Image.Resampling.BICUBIC)
    left, top = (full[0] - width) // 2, (full[1] - height) // 2
    return image.crop((left, top, left + width, top + height))


def to_tensor(image: Image.Image) -> Tensor:
    """(c, h, w) float32 in [-1, 1] from an 8-bit picture: 0 -> -1, 255 -> 1."""
    array = np.array(image)  # a copy: the picture's own memory is read-only
    pixels = torch.from_numpy(array[:, :, None] if array.ndim == 2 else array)
    return from_uint8(pixels.permute(2, 0, 1))


def draw_flip(generator: torch.Generator) -> bool:
    """A fair coin. Data sets toss it first, so cached latents of the same position flip alike."""
    return bool(torch.rand((), generator=generator) < 0.5)


def flip(pixels: Tensor) -> Tensor:
    """Mirror left and right; pixels: (..., w)."""
    return pixels.flip(-1)


def moved(pixels: Tensor, generator: torch.Generator | None, most: int) -> Tensor:
    """The picture moved down and right by whole pixels of -most to most, drawn in this order.

    pixels: (c, h, w). What comes in repeats the border; without a generator the picture is left where it is.
    """
    if generator is None or not most:
        return pixels
    top, left = (int(torch.randint(0, 2 * most + 1, (), generator=generator)) for _ in range(2))
    height, width = pixels.shape[-2:]
    return pad(pixels, (most, most, most, most), mode="replicate")[
        ..., top : top + height, left : left + width
    ]

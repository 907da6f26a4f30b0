"""Pictures to tensors: the centre crop of ADM, the horizontal flip, and the range [-1, 1]."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.data.image_decode import MAX_PIXELS
from genzoo.pictures.pixels import from_uint8


def adm_centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The central square of a picture, `size` x `size`, as ADM and DiT cut it.

    The picture is halved (box filter) while its short side is at least 2 size, brought to short side `size`
    (bicubic) and cropped. Raises DataError for a picture so long that the resized strip would not fit in
    memory.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    if width * height > MAX_PIXELS:
        raise DataError(
            f"a picture of {image.width} x {image.height} is too long to be cut to {size} x {size}"
        )
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


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

"""Pictures cut as the trainers of VAR and CAR do: with a margin of an eighth, at random or centrally."""

from __future__ import annotations

import torch
from PIL import Image

from genzoo.core.errors import DataError
from genzoo.data.image_decode import MAX_PIXELS

MARGIN = 1.125


def with_margin(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture resized (Lanczos) to cover `size`, height and width, times 1.125.

    For squares the short side is brought to round(1.125 side), half to even, the long one follows and is cut
    off; a picture that fits already is left alone. Raises DataError for a strip that would not fit in memory.
    """
    height, width = (round(MARGIN * side) for side in size)
    if image.width * height <= image.height * width:
        full = width, int(width * image.height / image.width)
    else:
        full = int(height * image.width / image.height), height
    full = max(full[0], width), max(full[1], height)
    if full[0] * full[1] > MAX_PIXELS:
        raise DataError(
            f"a picture of {image.width} x {image.height} is too long to be cut to {size[1]} x {size[0]}"
        )
    return image if image.size == full else image.resize(full, Image.Resampling.LANCZOS)


def corner(
    outer: tuple[int, int], size: tuple[int, int], generator: torch.Generator | None
) -> tuple[int, int]:
    """Top and left of the crop: drawn, top first, or the centre, half to even, without a generator.

    Nothing is drawn for a picture of exactly the crop's size. Both (height, width). Raises DataError for a
    crop that is larger than the picture.
    """
    room = outer[0] - size[0], outer[1] - size[1]
    if min(room) < 0:
        raise DataError(
            f"there is no crop of {size[1]} x {size[0]} in a picture of {outer[1]} x {outer[0]}",
            fix="enlarge the picture first, or cut a smaller crop",
        )
    if generator is None:
        return round(room[0] / 2), round(room[1] / 2)
    if room == (0, 0):
        return 0, 0
    top, left = (int(torch.randint(0, side + 1, (1,), generator=generator)) for side in room)
    return top, left


def lanczos_crop(
    image: Image.Image, size: tuple[int, int], generator: torch.Generator | None = None
) -> Image.Image:
    """The picture with a margin, cut to `size`, height and width, where `corner` says."""
    resized = with_margin(image, size)
    top, left = corner((resized.height, resized.width), size, generator)
    return resized.crop((left, top, left + size[1], top + size[0]))

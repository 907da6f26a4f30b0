"""Frames to the size of the model: what the four data sets' protocols do to each frame of a clip, by name.

Known from Latte's code: short_side_crop for FaceForensics and UCF-101 (short side to the size, bilinear
without antialiasing, then the centre), square_resize for SkyTimelapse (the central square, then bilinear to
the size), exact for Taichi-HD (its videos have the size already). adm is what image data sets get here; it
antialiases, and is meant for videos of one's own. All take height and width too, and then cut no square but
what covers that shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from genzoo.core.errors import DataError, did_you_mean
from genzoo.core.sizes import Size, sides
from genzoo.data.image_decode import MAX_PIXELS
from genzoo.data.transforms import adm_centre_crop, to_tensor

FrameTransform = Callable[[Image.Image, Size], Tensor]
"""(picture, size) -> (c, h, w) float32 in [-1, 1]."""


def short_side_crop(image: Image.Image, size: Size) -> Tensor:
    """The smallest size that covers the one asked for (short side to `size` for squares), then the centre."""
    h, w = sides(size)
    scale = max(h / image.height, w / image.width)
    height, width = max(h, int(image.height * scale)), max(w, int(image.width * scale))
    _check_size(image, height, width)
    return _normalised(_centre(_resized(_pixels(image), height, width), h, w))


def square_resize(image: Image.Image, size: Size) -> Tensor:
    """The central square, or the largest centre of the shape asked for, then to `size`."""
    h, w = sides(size)
    height = min(image.height, max(1, image.width * h // w))
    width = min(image.width, max(1, image.height * w // h))
    return _normalised(_resized(_centre(_pixels(image), height, width), h, w))


def exact(image: Image.Image, size: Size) -> Tensor:
    """The picture as it is. Raises DataError when it has another size."""
    height, width = sides(size)
    if image.size != (width, height):
        raise DataError(
            f"a frame has {image.width} x {image.height} pixels, not {width} x {height}",
            fix="bring the videos to that size, or choose data.transform=short_side_crop",
        )
    return to_tensor(image)


def adm(image: Image.Image, size: Size) -> Tensor:
    """ADM's centre crop, as image data sets have it."""
    return to_tensor(adm_centre_crop(image, size))


TRANSFORMS: dict[str, FrameTransform] = {
    "short_side_crop": short_side_crop,
    "square_resize": square_resize,
    "exact": exact,
    "adm": adm,
}


def frame_transform(name: str) -> FrameTransform:
    """A transform by name. Raises DataError for an unknown one."""
    if name not in TRANSFORMS:
        hint = did_you_mean(name, TRANSFORMS) or f"choose one of {', '.join(TRANSFORMS)}"
        raise DataError(f"there is no frame transform {name!r}; {hint}")
    return TRANSFORMS[name]


def _pixels(image: Image.Image) -> Tensor:
    array = np.array(image)
    return torch.from_numpy(array[:, :, None] if array.ndim == 2 else array).permute(2, 0, 1).float() / 255


def _resized(pixels: Tensor, height: int, width: int) -> Tensor:
    return interpolate(pixels[None], (height, width), mode="bilinear", align_corners=False)[0]


def _centre(pixels: Tensor, height: int, width: int) -> Tensor:
    top, left = round((pixels.shape[1] - height) / 2), round((pixels.shape[2] - width) / 2)
    return pixels[:, top : top + height, left : left + width]


def _normalised(pixels: Tensor) -> Tensor:
    return pixels * 2 - 1


def _check_size(image: Image.Image, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise DataError(f"a frame of {image.width} x {image.height} is too long to be cut to size")

"""Frames to squares: what the four data sets' protocols do to each frame of a clip, by name.

Known from Latte's code: short_side_crop for FaceForensics and UCF-101 (short side to the size, bilinear
without antialiasing, then the centre), square_resize for SkyTimelapse (the central square, then bilinear to
the size), exact for Taichi-HD (its videos have the size already). adm is what image data sets get here; it
antialiases, and is meant for videos of one's own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from genzoo.core.errors import DataError, did_you_mean
from genzoo.data.image_decode import MAX_PIXELS
from genzoo.data.transforms import adm_centre_crop, to_tensor

FrameTransform = Callable[[Image.Image, int], Tensor]
"""(picture, size) -> (c, size, size) float32 in [-1, 1]."""


def short_side_crop(image: Image.Image, size: int) -> Tensor:
    """Short side to `size`, then the centre."""
    scale = size / min(image.size)
    height, width = (max(size, int(length * scale)) for length in (image.height, image.width))
    _check_size(image, height, width)
    return _normalised(_centre(_resized(_pixels(image), height, width), size, size))


def square_resize(image: Image.Image, size: int) -> Tensor:
    """The central square, then to `size`."""
    side = min(image.size)
    return _normalised(_resized(_centre(_pixels(image), side, side), size, size))


def exact(image: Image.Image, size: int) -> Tensor:
    """The picture as it is. Raises DataError when it has another size."""
    if image.size != (size, size):
        raise DataError(
            f"a frame has {image.width} x {image.height} pixels, not {size} x {size}",
            fix="bring the videos to that size, or choose data.transform=short_side_crop",
        )
    return to_tensor(image)


def adm(image: Image.Image, size: int) -> Tensor:
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
        raise DataError(f"a frame of {image.width} x {image.height} is too long to be cut to a square")

"""What is seen of a picture: decoded, cut, perhaps mirrored, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.data.image_decode import MAX_PIXELS, decode_image
from genzoo.data.lanczos_crop import lanczos_crop
from genzoo.data.transforms import adm_centre_crop, draw_flip, flip, size_name, to_tensor

RANDOM, CENTRAL = "official", "official_centre"
CROPS = ("adm", RANDOM, CENTRAL)


@dataclass(frozen=True)
class PictureView:
    """size: height and width.   crop: of CROPS, see `image_folder`.   horizontal_flip: mirror half of the
    pictures where there is a generator."""

    size: tuple[int, int]
    channels: int = 3
    horizontal_flip: bool = True
    crop: str = "adm"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise DataError(f"pictures have channels 1 or 3; got {self.channels}")
        if self.crop not in CROPS:
            raise DataError(f"there is no crop {self.crop!r}", fix=f"use one of {', '.join(CROPS)}")

    @property
    def augments(self) -> bool:
        """Whether a generator changes anything."""
        return self.horizontal_flip or self.crop == RANDOM

    @property
    def transform(self) -> str:
        """What happens to a file's bytes on the way to pixels, flipping aside; part of a cache's keys."""
        name = "adm_centre_crop" if self.crop == "adm" else f"lanczos_{self.crop}"
        return f"{name}|{size_name(self.size)}|channels {self.channels}|white|exif"

    def pixels(self, data: bytes, generator: torch.Generator | None, *, where: str) -> Tensor:
        """(channels, h, w) in [-1, 1] of a file's bytes. Raises DataError with its name."""
        image = decode_image(data, where=where, channels=self.channels, max_pixels=self.max_pixels)
        mirrored = self.horizontal_flip and generator is not None and draw_flip(generator)
        try:
            pixels = to_tensor(self._cut(image, generator))
        except DataError as error:
            raise DataError(error.what, where=where) from error
        return flip(pixels) if mirrored else pixels

    def _cut(self, image: Image.Image, generator: torch.Generator | None) -> Image.Image:
        if self.crop == "adm":
            return adm_centre_crop(image, self.size)
        return lanczos_crop(image, self.size, generator if self.crop == RANDOM else None)


class SeesPictures:
    """What data sets that show pictures through a view have in common."""

    view: PictureView

    @property
    def augments(self) -> bool:
        """Whether fetch makes use of a generator."""
        return self.view.augments

    @property
    def transform(self) -> str:
        """What happens to a picture's bytes on the way to pixels, flipping aside; part of a cache's keys."""
        return self.view.transform

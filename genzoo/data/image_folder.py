"""Folders of pictures: root/class_name/*.jpg|jpeg|png|webp, or a flat folder without classes."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from genzoo.core.errors import DataError
from genzoo.core.reading import shown
from genzoo.core.sizes import Size, sides
from genzoo.core.types import Dataset
from genzoo.data.cached_controls import CachedControls
from genzoo.data.cached_latents import CachedLatents
from genzoo.data.class_lists import ClassList, kept_labels
from genzoo.data.image_decode import MAX_PIXELS, read_file
from genzoo.data.image_listing import list_images, only_labels
from genzoo.data.indexed import Indexed
from genzoo.data.label_check import suspicious_classes
from genzoo.data.picture_view import CENTRAL, RANDOM, PictureView, SeesPictures

logger = logging.getLogger(__name__)


def image_folder(
    root: str | Path,
    *,
    image_size: Size = 256,
    channels: int = 3,
    horizontal_flip: bool = True,
    crop: str = "adm",
    class_names: Sequence[str] | None = None,
    include_classes: ClassList | None = None,
    exclude_classes: ClassList | None = None,
    follow_links: bool = False,
    max_pixels: int = MAX_PIXELS,
    latent_cache: str | Path | None = None,
    latent_dtype: str = "float16",
    controls: str | Path | None = None,
) -> Dataset:
    """A folder of pictures; or their latents, when `prepare latents` has filled the folder `latent_cache`.

    controls: a folder that `prepare controls` has filled; items then have a "control". Both hold central
    views, so random crops are refused beside them.
    """
    if crop == RANDOM and (latent_cache is not None or controls is not None):
        raise DataError(
            "stored latents and controls are of central views, and data.crop=official cuts at random",
            fix=f"set data.crop={CENTRAL}, or leave out latent_cache and controls",
        )
    images = ImageFolder(
        root,
        image_size=image_size,
        channels=channels,
        horizontal_flip=horizontal_flip,
        crop=crop,
        class_names=class_names,
        include_classes=include_classes,
        exclude_classes=exclude_classes,
        follow_links=follow_links,
        max_pixels=max_pixels,
    )
    source = images if latent_cache is None else CachedLatents(images, latent_cache, dtype=latent_dtype)
    return source if controls is None else CachedControls(source, controls)


class ImageFolder(Indexed, SeesPictures):
    """fetch gives {"pixels": (channels, h, w) float32 in [-1, 1]} and, with classes, {"class_labels": int64
    ()}.

    image_size: the side of squares, or [h, w].   crop: "adm", ADM's centre crop; "official", that of VAR's
    and CAR's trainers, with a margin of an eighth, at random where fetch is given a generator and central
    elsewhere; "official_centre", always central.   Classes are the
    folder names in natural order, or `class_names` in the order given. include_classes, exclude_classes: show
    these classes only, or all but these, by names or a file with one a line; labels and num_classes stay
    those of all. `horizontal_flip` mirrors half of the pictures at random when fetch is given a generator.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        image_size: Size = 256,
        channels: int = 3,
        horizontal_flip: bool = True,
        crop: str = "adm",
        class_names: Sequence[str] | None = None,
        include_classes: ClassList | None = None,
        exclude_classes: ClassList | None = None,
        follow_links: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        size = sides(image_size)
        self.view = PictureView(size, channels, horizontal_flip, crop, max_pixels)
        listing = list_images(root, class_names=class_names, follow_links=follow_links)
        self.listing = only_labels(
            listing, kept_labels(listing.class_names, include_classes, exclude_classes)
        )
        self.left_out = self.listing.ignored
        if self.listing.ignored:
            names = ", ".join(shown(name) for name in self.listing.ignored[:5])
            logger.warning(
                "%d other file(s) in the data folder are left out: %s", len(self.listing.ignored), names
            )
        self.image_size, self.channels, self.horizontal_flip = size, channels, horizontal_flip
        self.sample_shape: tuple[int, ...] = (channels, *size)
        self.class_names: list[str] | None = self.listing.class_names
        self.num_classes: int | None = len(self.class_names) if self.class_names is not None else None
        self.labels = None if self.listing.labels is None else torch.from_numpy(self.listing.labels).long()
        self._root = os.fspath(self.listing.root)
        self._inside = None if follow_links else self.listing.root
        for warning in suspicious_classes(self.class_names):
            logger.warning("%s: %s", shown(self.listing.root), warning)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with file names, sizes, labels and settings; not with the place of the folder."""
        return self._fingerprint(f"{self.transform}|{self.horizontal_flip}|{self.class_names}")

    @cached_property
    def pictures_fingerprint(self) -> str:
        """The same for folders that differ in flips alone."""
        return self._fingerprint(f"{self.transform}|{self.class_names}")

    def _fingerprint(self, facts: str) -> str:
        digest = hashlib.sha256(facts.encode())
        for index in range(len(self)):
            digest.update(os.fsencode(self.stamp(index).rpartition("|")[0]) + b"\0")
        return digest.hexdigest()[:32]

    def __len__(self) -> int:
        return len(self.listing.files)

    def path(self, index: int) -> Path:
        """The file of an item."""
        return Path(self.listing.root, self.listing.files[index])

    def content(self, index: int) -> bytes:
        """The bytes of an item's file."""
        return read_file(self.path(index), root=self._inside)

    def stamp(self, index: int) -> str:
        """Name, size and time of change: differs after an edit, without reading the file."""
        try:
            status = os.stat(os.path.join(self._root, self.listing.files[index]))
        except OSError:  # a link to nowhere, or deleted since: fetch will name it
            return f"{self.listing.files[index]}|missing|0"
        return f"{self.listing.files[index]}|{status.st_size}|{status.st_mtime_ns}"

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """One picture. Raises DataError with the file's name when it cannot be read."""
        where = shown(self.path(index))
        pixels = self.view.pixels(self.content(index), generator, where=where)
        return {"pixels": pixels} | self.annotations(index)

    def annotations(self, index: int) -> dict[str, Any]:
        """{"class_labels": int64 ()}, or nothing without classes."""
        return {} if self.labels is None else {"class_labels": self.labels[index].clone()}

"""A data set with the control of every picture, extracted beforehand and kept like latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.contracts import able, members
from genzoo.core.contracts.datasets import (
    KnowsContent,
    KnowsPath,
    KnowsStamp,
    NamesTransform,
    NeedsCodec,
    SharesWork,
    augments,
    labels_of,
    pictures_of,
)
from genzoo.core.errors import DataError, UsageError
from genzoo.core.processes import World
from genzoo.core.types import ControlExtractor, Dataset
from genzoo.data.cached_latents import CachedLatents
from genzoo.data.indexed import Indexed
from genzoo.data.transforms import draw_flip, flip
from genzoo.pictures.pixels import from_uint8, nearest_levels

FIX = "`genzoo prepare controls RECIPE` extracts what is missing"


class CachedControls(Indexed):
    """fetch gives what the pictures give and "control": (3, h, w) float32 in [-1, 1], mirrored when they are.

    The control is that of the picture as it is cut for training, so it has been cropped with it.
    `bind_control` must be called before the first fetch: it compares the cache with the pictures and the
    extractor. source: pictures, or their cached latents.   folder: where `rows` lie.
    """

    def __init__(self, source: Dataset, folder: str | Path) -> None:
        self.source, self.folder = source, Path(folder).expanduser()
        self.images = pictures_of(source)
        self.sample_shape, self.num_classes = source.sample_shape, source.num_classes
        self.class_names, self.labels = source.class_names, labels_of(source)
        if tuple(self.sample_shape[:1]) != (3,):
            raise DataError(f"controls are of pictures with 3 channels, not of {tuple(self.sample_shape)}")
        self.rows = CachedLatents(_Unflipped(self.images), self.folder, dtype="uint8")
        self.extractor = ""
        latents = able(source, NeedsCodec)
        if latents is not None:
            self.bind_codec = latents.bind_codec

    @property
    def augments(self) -> bool:
        """Whether fetch makes use of a generator."""
        return augments(self.source)

    @property
    def fingerprint(self) -> str:
        """That of the pictures and of the extractor, once it is known."""
        return f"{self.source.fingerprint}|{self.extractor}"

    def __len__(self) -> int:
        return len(self.source)

    def share_work(self, world: World) -> None:
        """The processes that look for the entries together."""
        self.rows.share_work(world)
        stored = able(self.source, SharesWork)
        if stored is not None:
            stored.share_work(world)

    def bind_control(self, extractor: ControlExtractor | None) -> None:
        """Find this extractor's entries. Raises DataError when a picture has none."""
        if extractor is None:
            raise UsageError(
                "the data have cached controls, but nothing says which extractor made them",
                fix="name it: task.control=canny",
            )
        try:
            self.rows.bind_codec(ControlCodec(extractor))
        except DataError as error:
            raise DataError(
                "the control cache does not fit the pictures, or was made by another extractor or settings",
                where=str(self.folder),
                why=f"extractor {extractor.fingerprint}: {error.why}",
                fix=FIX,
            ) from error
        self.extractor = extractor.fingerprint

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """One item; with a generator that mirrors the picture, the control is mirrored too."""
        if not self.extractor:
            raise UsageError(
                "cached controls have no extractor yet", fix="call dataset.bind_control(...) first"
            )
        # data sets toss the coin of the flip first: the same toss, from a copy, tells what they will do
        toss = None if generator is None else generator.clone_state()
        item = dict(self.source.fetch(index, generator))
        mirrored = self.augments and toss is not None and draw_flip(toss)
        control = self.control(index)
        return item | {"control": flip(control) if mirrored else control}

    def control(self, index: int) -> Tensor:
        """The control of a picture that is not mirrored: (3, h, w) in [-1, 1]."""
        try:
            levels = self.rows.fetch(index)["moments"]
        except DataError as error:
            raise DataError(
                "a cached control cannot be read", where=error.where, why=error.what, fix=FIX
            ) from error
        return from_uint8(levels).expand(3, -1, -1).contiguous()


class ControlCodec:
    """An extractor in a codec's place: what `build_latent_cache` stores are the controls, as 8-bit levels."""

    def __init__(self, extractor: ControlExtractor) -> None:
        self.extractor, self.fingerprint = extractor, f"control-{extractor.fingerprint}"

    def latent_shape(self, pixel_shape: tuple[int, ...]) -> tuple[int, ...]:
        """One channel for grey controls."""
        return (self.extractor.channels, *pixel_shape[1:])

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the extractor."""
        self.extractor.to(device)

    def moments(self, pixels: Tensor) -> Tensor:
        """(b, 1 or 3, h, w) uint8 of pictures (b, 3, h, w) in [-1, 1]."""
        levels = nearest_levels(self.extractor(pixels)).byte()
        return levels[:, : self.extractor.channels]

    def sample_moments(self, moments: Tensor, generator: Any) -> Tensor:
        """The controls themselves."""
        return moments

    def encode(self, pixels: Tensor, generator: Any) -> Tensor:
        """The controls of the pictures."""
        return self.moments(pixels)

    def decode(self, latents: Tensor) -> Tensor:
        """Levels as pictures (b, 3, h, w) in [-1, 1]."""
        return from_uint8(latents).expand(-1, 3, -1, -1)


class _Unflipped:
    """The pictures as they are cut, never mirrored, and without their annotations."""

    augments, horizontal_flip = False, False

    def __init__(self, images: Dataset) -> None:
        self.images = images
        self.sample_shape = images.sample_shape
        self.num_classes: int | None = None
        self.class_names: list[str] | None = None
        for ability in (KnowsContent, KnowsStamp, KnowsPath, NamesTransform):
            for name in members(ability) if able(images, ability) is not None else ():
                setattr(self, name, getattr(images, name))

    @property
    def fingerprint(self) -> str:
        return self.images.fingerprint

    def __len__(self) -> int:
        return len(self.images)

    def annotations(self, index: int) -> dict[str, Any]:
        return {}

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        return {"pixels": self.images.fetch(index)["pixels"]}

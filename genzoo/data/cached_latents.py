"""The data set that reads a latent cache in place of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from genzoo.core.contracts.datasets import labels_of
from genzoo.core.processes import World
from genzoo.core.types import Dataset, LatentCodec
from genzoo.data.cached_rows import CachedRows, require_codec
from genzoo.data.indexed import Indexed
from genzoo.data.latent_keys import Keyring, annotations_of, has_flips, item_name
from genzoo.data.transforms import draw_flip


class CachedLatents(Indexed):
    """fetch gives {"moments": (2c, h, w) float32} and what the images carry besides pixels.

    `bind_codec` must be called before the first fetch: it compares the cache with the images and the codec.
    The images stay reachable as `images`.
    """

    def __init__(self, images: Dataset, folder: str | Path, *, dtype: str = "float32") -> None:
        self.images, self.folder, self.dtype = images, Path(folder).expanduser(), dtype
        self.sample_shape, self.num_classes = images.sample_shape, images.num_classes
        self.class_names, self.labels = images.class_names, labels_of(images)
        self.flips = has_flips(images)
        self.rows = CachedRows(folder, dtype=dtype, row_key=_only_row, what="image")

    @property
    def augments(self) -> bool:
        """Whether fetch makes use of a generator."""
        return self.flips

    @property
    def fingerprint(self) -> str:
        """That of the images: latents of the same pictures are the same data."""
        return self.images.fingerprint

    def __len__(self) -> int:
        return len(self.images)

    def share_work(self, world: World) -> None:
        """The processes that look for the entries together."""
        self.rows.world = world

    def bind_codec(self, codec: LatentCodec | None) -> None:
        """Find this codec's entries. Raises DataError when a readable image has none: it is new or edited."""
        keyring = Keyring(self.images, require_codec(codec), self.dtype)
        self.rows.bind(keyring, [1] * len(self), lambda index, _: self.images.fetch(index))

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """The moments of one image; with a generator, those of its mirror image half of the time."""
        stored = self.rows.read(index, 0, where=item_name(self.images, index))
        mirrored = self.flips and generator is not None and draw_flip(generator)
        return {"moments": stored[int(mirrored)].float()} | annotations_of(self.images, index)


def _only_row(key: bytes, row: int) -> bytes:
    """The key of a picture's row is the picture's own."""
    return key

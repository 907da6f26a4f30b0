"""The data set that reads a latent cache in place of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genzoo.core.contracts import labels_of
from genzoo.core.errors import DataError, UsageError
from genzoo.core.types import Dataset, LatentCodec
from genzoo.data.latent_keys import Keyring, annotations_of, has_flips, item_name, load_stamps
from genzoo.data.latent_store import LatentStore, ShardReader
from genzoo.data.transforms import draw_flip

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "uint8": torch.uint8,  # of codecs whose moments are 8-bit levels, such as controls
}
MISSING = (-1, -1)


class CachedLatents:
    """fetch gives {"moments": (2c, h, w) float32} and what the images carry besides pixels.

    `bind_codec` must be called before the first fetch: it compares the cache with the images and the codec.
    The images stay reachable as `images`.
    """

    def __init__(self, images: Dataset, folder: str | Path, *, dtype: str = "float32") -> None:
        if dtype not in DTYPES:
            raise DataError(f"latents are stored as {', '.join(DTYPES)}; not as {dtype!r}")
        self.images, self.folder, self.dtype = images, Path(folder).expanduser(), dtype
        self.sample_shape, self.num_classes = images.sample_shape, images.num_classes
        self.class_names, self.labels = images.class_names, labels_of(images)
        self.flips = has_flips(images)
        self._reader: ShardReader | None = None
        # arrays, not lists: a million Python objects would be copied into every loader worker
        self._keys = np.zeros((0, 16), np.uint8)
        self._places = np.zeros((0, 2), np.int32)

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

    def bind_codec(self, codec: LatentCodec | None) -> None:
        """Find this codec's entries. Raises DataError when a readable image has none: it is new or edited."""
        codec = require_codec(codec)
        keyring, store = Keyring(self.images, codec, self.dtype), LatentStore(self.folder)
        stamps = load_stamps(self.folder, keyring)
        keys = [keyring.find(index, stamps) for index in range(len(self.images))]
        refuse_stale(self._stale(keys, store), self.folder, "images")
        self._keys = np.frombuffer(b"".join(key or bytes(16) for key in keys), np.uint8).reshape(-1, 16)
        self._places = np.array([store.places.get(key, MISSING) for key in keys], np.int32)
        self._reader = store.reader

    def _stale(self, keys: list[bytes], store: LatentStore) -> Iterator[str]:
        for index, key in enumerate(keys):
            if key not in store.places and _readable(self.images, index):
                yield item_name(self.images, index)

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """The moments of one image; with a generator, those of its mirror image half of the time."""
        if self._reader is None:
            raise UsageError("cached latents have no codec yet", fix="call dataset.bind_codec(codec) first")
        number, row = self._places[index].tolist()
        if (number, row) == MISSING:
            raise DataError("this image could not be encoded", where=item_name(self.images, index))
        mirrored = self.flips and generator is not None and draw_flip(generator)
        moments = self._reader.read(number, row, self._keys[index].tobytes())[int(mirrored)]
        return {"moments": moments.float()} | annotations_of(self.images, index)


def _readable(images: Dataset, index: int) -> bool:
    try:
        images.fetch(index)
    except DataError:
        return False
    return True


def require_codec(codec: LatentCodec | None) -> LatentCodec:
    """The codec. Raises UsageError when cached latents have none."""
    if codec is None:
        raise UsageError(
            "the data are cached latents, but there is no codec",
            fix="drop data.latent_cache, or name a codec",
        )
    return codec


def refuse_stale(stale: Iterator[str], folder: Path, what: str) -> None:
    """Raise DataError when there is a name: readable data that the cache does not hold."""
    names = list(islice(stale, 4))
    if names:
        raise DataError(
            f"the latent cache does not fit the {what}, the codec or the settings",
            where=str(folder),
            why="no entry for " + ", ".join(names[:3]) + (" ..." if len(names) > 3 else ""),
            fix="`genzoo prepare latents RECIPE` builds what is missing",
        )

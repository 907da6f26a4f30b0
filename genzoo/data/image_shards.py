"""Pictures in tar shards, read in any order: an item is a place in a shard, and nothing is unpacked."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genzoo.core.errors import DataError
from genzoo.core.sizes import Size, sides
from genzoo.core.types import Dataset
from genzoo.data.cached_controls import CachedControls
from genzoo.data.cached_latents import CachedLatents
from genzoo.data.image_decode import MAX_PIXELS
from genzoo.data.indexed import Indexed
from genzoo.data.natural_order import natural
from genzoo.data.picture_view import CENTRAL, RANDOM, PictureView, SeesPictures
from genzoo.data.shard_index import NONE, open_index, require_header
from genzoo.data.shard_places import RemoteFile, ShardPlace, place_of
from genzoo.data.tar_members import BLOCK
from genzoo.data.tar_samples import caption_of

OPEN_SHARDS = 64  # at once, in each process


def image_shards(
    root: str | Path,
    *,
    image_size: Size = 256,
    channels: int = 3,
    horizontal_flip: bool = True,
    crop: str = "adm",
    captions: bool = False,
    class_names: Sequence[str] | None = None,
    index: str | Path | None = None,
    max_pixels: int = MAX_PIXELS,
    latent_cache: str | Path | None = None,
    latent_dtype: str = "float16",
    controls: str | Path | None = None,
) -> Dataset:
    """The pictures of root/*.tar, in the layout of webdataset; or their latents, as with `image_folder`.

    root: a folder, or a URL that fsspec reads, such as s3://bucket/folder (extras `s3`, `gcs`).   index: the
    folder in which `genzoo prepare shards` wrote, beside the shards when left out.
    """
    if crop == RANDOM and (latent_cache is not None or controls is not None):
        raise DataError(
            "stored latents and controls are of central views, and data.crop=official cuts at random",
            fix=f"set data.crop={CENTRAL}, or leave out latent_cache and controls",
        )
    view = PictureView(sides(image_size), channels, horizontal_flip, crop, max_pixels)
    images = ImageShards(root, view, captions=captions, class_names=class_names, index=index)
    source = images if latent_cache is None else CachedLatents(images, latent_cache, dtype=latent_dtype)
    return source if controls is None else CachedControls(source, controls)


class ImageShards(Indexed, SeesPictures):
    """fetch gives {"pixels": (channels, h, w) float32 in [-1, 1]}, with classes {"class_labels": int64 ()},
    and with captions {"captions": str}.

    Items are in the order of the shards' names, then of their places. Classes are the integers of .cls
    members; either all samples have one or none. class_names: for them, from 0 on; the numbers themselves
    when left out.
    """

    _owner = 0  # nobody's, until files may be open

    def __init__(
        self,
        root: str | Path,
        view: PictureView,
        *,
        captions: bool = False,
        class_names: Sequence[str] | None = None,
        index: str | Path | None = None,
    ) -> None:
        self.root, self.view, self.with_captions = place_of(root), view, captions
        self.horizontal_flip = view.horizontal_flip
        self.sample_shape: tuple[int, ...] = (view.channels, *view.size)
        folder = None if index is None else Path(index).expanduser()
        self.shards = [open_index(path, folder) for path in shards_in(self.root)]
        self._ends = np.cumsum([0, *map(len, self.shards)])
        self._stamps = [path.path.stat().st_mtime_ns for path in self.shards]
        self._open: OrderedDict[int, int] = OrderedDict()
        self._owner = os.getpid()
        labels = np.concatenate([shard.labels for shard in self.shards])
        self.labels = self._labels(labels)
        named = None if self.labels is None else _names(labels, class_names, self.root)
        self.class_names: list[str] | None = named
        self.num_classes: int | None = None if named is None else len(named)
        if captions:
            self._require_captions()

    @cached_property
    def fingerprint(self) -> str:
        """Changes with names, keys, sizes, classes and settings; not with the place or time of the shards."""
        facts = f"{self.transform}|{self.horizontal_flip}|{self.class_names}|{self.with_captions}"
        digest = hashlib.sha256(facts.encode())
        for shard in self.shards:
            keys = "\0".join(shard.keys[:]).encode("utf-8", "surrogateescape")
            digest.update(os.fsencode(shard.path.name) + b"\0" + keys)
            for array in (shard.places[:, 1], shard.places[:, 3], shard.labels, shard.extensions):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def content(self, index: int) -> bytes:
        """The bytes of an item's picture. Raises DataError when the shard does not give them."""
        number, row = self._place(index)
        offset, size = self.shards[number].places[row, :2].tolist()
        return self._read(number, offset, size, self._where(number, row))

    def stamp(self, index: int) -> str:
        """Shard, key, place and time of change: differs after an edit, without reading the picture."""
        number, row = self._place(index)
        shard = self.shards[number]
        offset, size = shard.places[row, :2].tolist()
        return f"{shard.path.name}|{shard.keys[row]}|{offset}|{size}|{self._stamps[number]}"

    def annotations(self, index: int) -> dict[str, Any]:
        """{"class_labels": int64 (), "captions": str}, as far as there are any."""
        found: dict[str, Any] = {}
        if self.labels is not None:
            found["class_labels"] = self.labels[index].clone()
        if self.with_captions:
            number, row = self._place(index)
            offset, size = self.shards[number].places[row, 2:].tolist()
            where = self._where(number, row)
            found["captions"] = caption_of(self._read(number, offset, size, where), where=where)
        return found

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """One picture. Raises DataError with shard, key and offset when it cannot be read."""
        where = self._where(*self._place(index))
        return {"pixels": self.view.pixels(self.content(index), generator, where=where)} | self.annotations(
            index
        )

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side="right")) - 1
        return number, index - int(self._ends[number])

    def _where(self, number: int, row: int) -> str:
        shard = self.shards[number]
        return f"{shard.path}: {shard.keys[row]}, at byte {int(shard.places[row, 0])}"

    def _read(self, number: int, offset: int, size: int, where: str) -> bytes:
        shard = self.shards[number]
        try:
            if not shard.checked:
                require_header(shard.path, self._bytes(number, offset - BLOCK, BLOCK), where, size)
            data = self._bytes(number, offset, size)
        except OSError as error:
            raise DataError("the shard cannot be read", where=where, why=str(error)) from error
        if len(data) != size:
            raise DataError(
                f"the shard gives {len(data):,} of {size:,} bytes",
                where=where,
                fix="it was changed or cut: `genzoo prepare shards` makes its index anew",
            )
        return data

    def _bytes(self, number: int, offset: int, size: int) -> bytes:
        path = self.shards[number].path
        if isinstance(path, RemoteFile):
            return path.read(offset, size)
        return os.pread(self._descriptor(number, path), size, offset)

    def _descriptor(self, number: int, path: Path) -> int:
        if self._owner != os.getpid():  # a fork shares descriptors, and closing one would close both
            self._open, self._owner = OrderedDict(), os.getpid()
        if number not in self._open:
            self._open[number] = os.open(path, os.O_RDONLY)
            if len(self._open) > OPEN_SHARDS:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(number)
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}  # open files do not travel to other processes

    def __del__(self) -> None:
        if self._owner == os.getpid():
            for descriptor in self._open.values():
                os.close(descriptor)

    def _labels(self, labels: np.ndarray) -> torch.Tensor | None:
        missing = np.flatnonzero(labels == NONE)
        if len(missing) == len(labels):
            return None
        if len(missing):
            raise DataError(
                f"{len(missing)} of {len(labels)} samples have no class",
                where=self._where(*self._place(int(missing[0]))),
                fix="give all of them a .cls member, or none",
            )
        return torch.from_numpy(labels).long()

    def _require_captions(self) -> None:
        for number, shard in enumerate(self.shards):
            missing = np.flatnonzero(shard.places[:, 2] == NONE)
            if len(missing):
                raise DataError(
                    "a sample has no caption",
                    where=self._where(number, int(missing[0])),
                    fix="set data.captions=false",
                )


def shards_in(root: ShardPlace) -> list[ShardPlace]:
    """root/*.tar in natural order. Raises DataError where there are none."""
    try:
        listed: list[ShardPlace] = [path for path in root.glob("*.tar") if path.is_file()]
    except OSError as error:
        raise DataError("the shards cannot be listed", where=str(root), why=str(error)) from error
    found = sorted(listed, key=lambda path: natural(path.name))
    if not found:
        raise DataError("there are no shards here", where=str(root), fix="name a folder with .tar files")
    return found


def _names(labels: np.ndarray, wanted: Sequence[str] | None, root: ShardPlace) -> list[str]:
    count = int(labels.max()) + 1
    if wanted is not None and len(wanted) < count:
        raise DataError(
            f"class_names has {len(wanted)} names, but the shards have classes up to {count - 1}",
            where=str(root),
        )
    return list(wanted) if wanted is not None else [str(number) for number in range(count)]

"""Encode a data set once: a cache of a codec's moments that cannot go stale, and the data set that reads it.

An item's key is a hash of its file's bytes, the codec, the transform, the resolution, the dtype and whether
flips are kept. Change one of them and exactly the entries it touches are built again; old ones stay until
`prune`. What is stored are the moments (mean and log-variance), so each epoch still draws its own latents,
and those of the mirrored picture too, so flipping is exactly what it is without a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from genzoo.core.claims import claim_folder
from genzoo.core.errors import DataError, UsageError
from genzoo.core.leftovers import remove_leftovers
from genzoo.core.processes import World
from genzoo.core.types import Dataset, LatentCodec
from genzoo.data.cached_clips import CachedClips, clip_keyring
from genzoo.data.cached_latents import CachedLatents
from genzoo.data.cached_rows import DTYPES
from genzoo.data.frame_chunks import FrameChunks, Item
from genzoo.data.latent_keys import STAMPS, Keyring, save_stamps, stamps_path
from genzoo.data.latent_store import SHARD_BYTES, LatentStore, is_cache
from genzoo.data.loader_workers import one_pass
from genzoo.data.sample_stream import one_line
from genzoo.data.transforms import flip


@dataclass(frozen=True)
class CacheReport:
    """total items = reused + built + len(bad); of videos the items are frames, but bad names videos.

    bad: "file: reason" of items that could not be encoded.   damaged: entries whose checksum failed (built
    again). unused: entries of the folder that this data set and codec do not use.   pruned: how many of them
    were removed.
    """

    total: int
    reused: int
    built: int
    bad: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unused: int = 0
    pruned: int = 0

    def problems(self) -> list[str]:
        """A line for each item that could not be stored, and each entry that was damaged."""
        return [*(f"unreadable: {one}" for one in self.bad), *(f"damaged: {one}" for one in self.damaged)]


def _claimed(folder: Path) -> LatentStore:
    """The store of a folder that is empty or was a cache before. Raises UsageError for anybody else's."""
    return LatentStore(claim_folder(folder, what="a cache", is_ours=is_cache))


def build_latent_cache(
    dataset: Dataset | CachedLatents | CachedClips,
    codec: LatentCodec,
    folder: str | Path | None = None,
    *,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    dtype: str = "float32",
    num_workers: int = 0,
    prune: bool = False,
    progress: Callable[[int, int], None] | None = None,
    world: World | None = None,
) -> CacheReport:
    """Encode every image that has no valid entry yet; killed at any point, the next call goes on from there.

    dataset: images, or CachedLatents, which bring their own folder and dtype; or CachedClips, whose videos
    are encoded frame by frame. prune: remove the entries that this data set and codec do not use.
    progress(done, total) is called after each item; both are of this process's share.
    world: the processes that share the work, and see the same folder. All get the report of the whole.
    """
    if not isinstance(dataset, CachedLatents | CachedClips):
        if folder is None:
            raise UsageError("name the folder of the latent cache")
        dataset = CachedLatents(dataset, folder, dtype=dtype)
    world = world or World.single()
    codec.to(device)
    folder = dataset.folder
    damaged = world.on_first(lambda: _claimed(folder).verify())
    store = LatentStore(folder)
    keyring, items = source_of(dataset, codec, frozenset(store.places))
    groups = world.every(range(len(items)))
    tally = _Tally(items.total // world.size, progress)
    writer = _Writer(store, codec, device, DTYPES[dataset.dtype], dataset.flips, tally)

    def encode() -> None:
        for group in one_pass(items, num_workers, batch_size=None, sampler=groups):
            for item in group:
                writer.take(item, batch_size)
        writer.close()

    world.together(encode)
    whole = _merged(world.gather(tally.found()))
    unused = world.on_first(lambda: _finish(folder, keyring, whole, prune=prune))
    return CacheReport(
        items.total, whole.reused, whole.built, whole.bad, damaged, unused, pruned=unused if prune else 0
    )


def _finish(folder: Path, keyring: Keyring, found: _Found, *, prune: bool) -> int:
    """Write the one table of stamps, and count or remove the entries that nobody uses."""
    save_stamps(folder, keyring, found.stamps)
    store = LatentStore(folder)  # with what all processes have added
    unused = len(store.places.keys() - found.live)
    if prune:
        store.keep(found.live)
        _remove_old_stamps(folder, keyring)
        remove_leftovers(folder)
    return unused


def source_of(
    dataset: CachedLatents | CachedClips, codec: LatentCodec, known: frozenset[bytes]
) -> tuple[Keyring, Images | FrameChunks]:
    """The keys of a data set, and the items to encode in groups."""
    if isinstance(dataset, CachedClips):
        keyring = clip_keyring(dataset, codec)
        return keyring, FrameChunks(dataset.images, keyring, known)
    keyring = Keyring(dataset.images, codec, dataset.dtype)
    return keyring, Images(keyring, known)


class Images(TorchDataset):
    """What loader workers do: hash each image, and decode those that are not in the cache."""

    def __init__(self, keyring: Keyring, known: frozenset[bytes]) -> None:
        self.keyring, self.known = keyring, known
        self.total = len(keyring.images)

    def __len__(self) -> int:
        return self.total

    def item(self, group: int) -> int:
        """The item that a group belongs to."""
        return group

    def __getitem__(self, index: int) -> list[Item]:
        try:
            stamp, key = self.keyring.stamp(index), self.keyring.key(index)
            pixels = None if key in self.known else self.keyring.images.fetch(index)["pixels"]
        except DataError as error:
            return [Item(b"", None, error=one_line(error))]
        return [Item(key, pixels, stamp=(stamp or key, key))]


class _Found(NamedTuple):
    """What a process has done, or all of them. live: the keys that this data set and codec use."""

    reused: int
    built: int
    bad: list[str]
    stamps: dict[bytes, bytes]
    live: set[bytes]


def _merged(parts: Sequence[_Found]) -> _Found:
    """Of all processes, as one would have it; a file that several could not read is named once."""
    merged = _Found(sum(part.reused for part in parts), sum(part.built for part in parts), [], {}, set())
    for part in parts:
        merged.bad.extend(line for line in part.bad if line not in merged.bad)
        merged.stamps.update(part.stamps)
        merged.live.update(part.live)
    return merged


class _Tally:
    """What happened to each item of this process's share, for the report."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self.total, self.progress = total, progress
        self.reused, self.built = 0, 0
        self.bad: list[str] = []
        self.stamps: dict[bytes, bytes] = {}
        self.live: set[bytes] = set()
        self.done = 0

    def blame(self, error: str) -> None:
        """Note a file that cannot be read, once for all its frames."""
        file = error.partition(": ")[0]
        if file not in (line.partition(": ")[0] for line in self.bad):
            self.bad.append(error)

    def found(self) -> _Found:
        """All of it."""
        return _Found(self.reused, self.built, self.bad, self.stamps, self.live)

    def step(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


class _Writer:
    """Collects new items into batches for the codec, and their moments into shards."""

    def __init__(
        self,
        store: LatentStore,
        codec: LatentCodec,
        device: torch.device | str,
        dtype: torch.dtype,
        flips: bool,
        tally: _Tally,
    ) -> None:
        self.store, self.codec, self.device, self.dtype = store, codec, device, dtype
        self.flips, self.tally = flips, tally
        self.waiting: dict[bytes, Item] = {}
        self.keys: list[bytes] = []
        self.rows: list[Tensor] = []

    def take(self, item: Item, batch_size: int) -> None:
        tally = self.tally
        if item.stamp is not None:
            tally.stamps[item.stamp[0]] = item.stamp[1]
        if item.error is not None:
            tally.blame(item.error)
        else:
            tally.live.add(item.key)
            if item.pixels is None or item.key in self.waiting or item.key in self.store.places:
                tally.reused += 1
            else:
                self.waiting[item.key] = item
                tally.built += 1
        tally.step()
        if len(self.waiting) >= batch_size:
            self._encode()

    def close(self) -> None:
        if self.waiting:
            self._encode()
        self._flush()

    @torch.no_grad()
    def _encode(self) -> None:
        pixels = torch.stack([item.pixels for item in self.waiting.values() if item.pixels is not None])
        pixels = pixels.to(self.device)
        views = [pixels, flip(pixels)] if self.flips else [pixels]
        rows = torch.stack([self.codec.moments(view) for view in views], dim=1)
        if rows.is_floating_point() > self.dtype.is_floating_point:
            raise DataError(
                "latents have fractions, which uint8 would lose", fix="choose another latent_dtype"
            )
        rows = rows.to("cpu", self.dtype)
        if not rows.isfinite().all():
            raise DataError(
                f"the codec's moments are not finite as {self.dtype}",
                fix="choose latent_dtype float32, or check the codec's weights",
            )
        self.keys += self.waiting
        self.rows += rows
        self.waiting = {}
        if len(self.rows) * rows[0].nbytes >= SHARD_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self.rows:
            self.store.add(self.keys, torch.stack(self.rows))
        self.keys, self.rows = [], []


def _remove_old_stamps(folder: Path, keyring: Keyring) -> None:
    mine = stamps_path(folder, keyring)
    for path in folder.glob("stamps-*"):
        if STAMPS.fullmatch(path.name) and path != mine:
            path.unlink(missing_ok=True)

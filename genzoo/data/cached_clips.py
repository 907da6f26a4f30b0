"""The data set that reads cached latents of frames in place of videos, and cuts its clips from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import DataError, UsageError
from genzoo.core.types import LatentCodec
from genzoo.data.cached_latents import DTYPES, MISSING, refuse_stale, require_codec
from genzoo.data.latent_keys import Keyring, load_stamps
from genzoo.data.latent_store import LatentStore, ShardReader, digest

if TYPE_CHECKING:
    from genzoo.data.video_clips import VideoClips, View


class CachedClips:
    """fetch gives {"moments": (f, 2c, h, w) float32}, of the same frames that the videos would give.

    Stills come as "image_moments" (s, 2c, h, w). `bind_codec` must be called before the first fetch: it
    compares the cache with the videos and the codec. The videos stay reachable as `images`.
    """

    augments = True

    def __init__(self, clips: VideoClips, folder: str | Path, *, dtype: str = "float32") -> None:
        if dtype not in DTYPES:
            raise DataError(f"latents are stored as {', '.join(DTYPES)}; not as {dtype!r}")
        self.images, self.folder, self.dtype = clips, Path(folder).expanduser(), dtype
        self.sample_shape, self.num_classes = clips.sample_shape, clips.num_classes
        self.class_names, self.labels = clips.class_names, clips.labels
        self.flips = clips.horizontal_flip
        self._reader: ShardReader | None = None
        self._videos = np.zeros((0, 16), np.uint8)
        self._places = np.zeros((0, 2), np.int32)
        self._ends = np.zeros(1, np.int64)

    @property
    def fingerprint(self) -> str:
        """That of the videos: latents of the same frames are the same data."""
        return self.images.fingerprint

    def __len__(self) -> int:
        return len(self.images)

    def bind_codec(self, codec: LatentCodec | None) -> None:
        """Find this codec's entries. Raises DataError when a readable frame has none: it is new or edited."""
        codec = require_codec(codec)
        keyring, store = clip_keyring(self, codec), LatentStore(self.folder)
        stamps = load_stamps(self.folder, keyring)
        videos = [keyring.find(index, stamps) for index in range(len(self))]
        counts = [self.images.num_stored(index) for index in range(len(self))]
        places = [
            store.places.get(frame_key(key, frame), MISSING)
            for key, count in zip(videos, counts, strict=True)
            for frame in range(count)
        ]
        self._videos = np.frombuffer(b"".join(key or bytes(16) for key in videos), np.uint8).reshape(-1, 16)
        self._places = np.array(places, np.int32).reshape(-1, 2)
        self._ends = np.cumsum([0, *counts])
        refuse_stale(self._stale(), self.folder, "videos")
        self._reader = store.reader

    def _stale(self) -> Iterator[str]:
        """Videos with a frame that can be read and is not in the cache."""
        for index in range(len(self)):
            missing = np.flatnonzero(self._places[self._ends[index] : self._ends[index + 1], 0] < 0)
            if len(missing) and _readable(self.images, index, int(missing[0])):
                yield self.images.path(index)

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """The moments of one clip and of its stills. Raises DataError for frames that were not encoded."""
        if self._reader is None:
            raise UsageError("cached latents have no codec yet", fix="call dataset.bind_codec(codec) first")
        draw = self.images.draw(index, generator)
        item = {"moments": self._read(draw.clip)} | self.images.annotations(index)
        if self.images.use_image_num:
            stills = [self._first_whole(views) for views in draw.stills]
            item["image_moments"] = torch.cat([self._read(view) for view in stills])
            item |= self.images.still_labels([view.video for view in stills])
        return item

    def _read(self, view: View) -> Tensor:
        assert self._reader is not None  # fetch has looked
        key = self._videos[view.video].tobytes()
        rows = []
        for frame in self.images.places(view):
            number, row = self._places[self._ends[view.video] + frame].tolist()
            if (number, row) == MISSING:
                where = self.images.path(view.video)
                raise DataError(f"frame {frame} of this video could not be encoded", where=where)
            rows.append(self._reader.read(number, row, frame_key(key, frame))[int(view.mirrored)].float())
        if not rows:
            raise DataError("this video could not be encoded", where=self.images.path(view.video))
        return torch.stack(rows)

    def _first_whole(self, views: list[View]) -> View:
        """The candidate for a still that the videos themselves would show."""
        for view in views[:-1]:
            frame = self.images.places(view)[0]
            if self._places[self._ends[view.video] + frame, 0] >= 0:
                return view
        return views[-1]


def clip_keyring(cached: CachedClips, codec: LatentCodec) -> Keyring:
    """Keys of whole videos; `frame_key` makes those of their frames."""
    return Keyring(cached.images, codec, cached.dtype, flips=cached.flips)


def frame_key(video: bytes, frame: int) -> bytes:
    """The key of a frame, by its number in the file."""
    return digest(video, frame.to_bytes(8, "big"))


def _readable(clips: VideoClips, index: int, frame: int) -> bool:
    try:
        list(clips.read_frames(index, [frame]))
    except DataError:
        return False
    return True

"""The data set that reads cached latents of frames in place of videos, and cuts its clips from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.core.processes import World
from genzoo.core.types import LatentCodec
from genzoo.data.cached_rows import UNREAD, CachedRows, require_codec
from genzoo.data.indexed import Indexed
from genzoo.data.latent_keys import Keyring
from genzoo.data.latent_store import digest

if TYPE_CHECKING:
    from genzoo.data.video_clips import VideoClips, View


class CachedClips(Indexed):
    """fetch gives {"moments": (f, 2c, h, w) float32}, of the same frames that the videos would give.

    Stills come as "image_moments" (s, 2c, h, w). `bind_codec` must be called before the first fetch: it
    compares the cache with the videos and the codec. The videos stay reachable as `images`.
    """

    augments = True

    def __init__(self, clips: VideoClips, folder: str | Path, *, dtype: str = "float32") -> None:
        self.images, self.folder, self.dtype = clips, Path(folder).expanduser(), dtype
        self.sample_shape, self.num_classes = clips.sample_shape, clips.num_classes
        self.class_names, self.labels = clips.class_names, clips.labels
        self.flips = clips.horizontal_flip
        self.rows = CachedRows(folder, dtype=dtype, row_key=frame_key, what="video")

    @property
    def fingerprint(self) -> str:
        """That of the videos: latents of the same frames are the same data."""
        return self.images.fingerprint

    def __len__(self) -> int:
        return len(self.images)

    def share_work(self, world: World) -> None:
        """The processes that look for the entries together."""
        self.rows.world = world

    def bind_codec(self, codec: LatentCodec | None) -> None:
        """Find this codec's entries. Raises DataError when a readable frame has none: it is new or edited."""
        counts = [self.images.num_stored(index) for index in range(len(self))]
        keyring = clip_keyring(self, require_codec(codec))
        self.rows.bind(keyring, counts, lambda item, frame: list(self.images.read_frames(item, [frame])))

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """The moments of one clip and of its stills. Raises DataError for frames that were not encoded."""
        draw = self.images.draw(index, generator)
        item = {"moments": self._read(draw.clip)} | self.images.annotations(index)
        if self.images.use_image_num:
            stills = [self._first_whole(views) for views in draw.stills]
            item["image_moments"] = torch.cat([self._read(view) for view in stills])
            item |= self.images.still_labels([view.video for view in stills])
        return item

    def _read(self, view: View) -> Tensor:
        where, mirrored = self.images.path(view.video), int(view.mirrored)
        frames = self.images.places(view)
        if not frames:
            raise DataError("this video could not be encoded", where=where, why=UNREAD)
        return torch.stack(
            [self.rows.read(view.video, frame, where=where)[mirrored].float() for frame in frames]
        )

    def _first_whole(self, views: list[View]) -> View:
        """The candidate for a still that the videos themselves would show."""
        for view in views[:-1]:
            if self.rows.has(view.video, self.images.places(view)[0]):
                return view
        return views[-1]


def clip_keyring(cached: CachedClips, codec: LatentCodec) -> Keyring:
    """Keys of whole videos; `frame_key` makes those of their frames."""
    return Keyring(cached.images, codec, cached.dtype, flips=cached.flips)


def frame_key(video: bytes, frame: int) -> bytes:
    """The key of a frame, by its number in the file."""
    return digest(video, frame.to_bytes(8, "big"))

"""The frames of videos in groups, to be encoded one by one: what fills a latent cache of clips."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from genzoo.core.errors import DataError
from genzoo.data.cached_clips import frame_key
from genzoo.data.sample_stream import one_line

if TYPE_CHECKING:
    from genzoo.data.latent_keys import Keyring
    from genzoo.data.video_clips import VideoClips

CHUNK = 32  # frames in memory at once, per loader worker


class Item(NamedTuple):
    """One picture to encode. pixels: None when the cache has it.   stamp: a pair to remember, if any."""

    key: bytes
    pixels: Tensor | None
    stamp: tuple[bytes, bytes] | None = None
    error: str | None = None


class FrameChunks(TorchDataset):
    """Up to CHUNK consecutive frames of one video at a time, hashed, and decoded where they are new."""

    def __init__(self, clips: VideoClips, keyring: Keyring, known: frozenset[bytes]) -> None:
        self.clips, self.keyring, self.known = clips, keyring, known
        counts = [clips.num_stored(index) for index in range(len(clips))]
        self.total = sum(counts)
        self.counts = counts
        # an unreadable video has one chunk, which says so
        self.ends = list(accumulate(max(1, -(-count // CHUNK)) for count in counts))
        self._hashed: tuple[int, bytes] = (-1, b"")

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def item(self, chunk: int) -> int:
        """The video that a chunk belongs to."""
        return bisect_right(self.ends, chunk)

    def __getitem__(self, chunk: int) -> list[Item]:
        index = self.item(chunk)
        start = CHUNK * (chunk - (self.ends[index - 1] if index else 0))
        try:
            video = self._key(index)
        except DataError as error:
            return [Item(b"", None, error=one_line(error))]
        stamp = (self.keyring.stamp(index) or video, video)
        frames = range(start, min(start + CHUNK, self.counts[index]))
        keys = {frame: frame_key(video, frame) for frame in frames}
        new = [frame for frame, key in keys.items() if key not in self.known]
        items = [Item(key, None, stamp) for frame, key in keys.items() if frame not in new]
        try:
            for frame, pixels in self.clips.read_frames(index, new or frames[:0]):
                items.append(Item(keys[frame], pixels, stamp))
        except DataError as error:
            items.append(Item(b"", None, stamp, one_line(error)))
        return items

    def _key(self, index: int) -> bytes:
        """The video's key; a long video is hashed once for all its chunks."""
        if self._hashed[0] != index:
            self._hashed = (index, self.keyring.key(index))
        return self._hashed[1]

"""Clips to be judged: from folders of video files or of frame folders, or from arrays."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from genzoo.core.errors import DataError, UsageError
from genzoo.core.seeds import generator_for, mix_seed
from genzoo.data.array_files import Array, check_levels, read_array
from genzoo.data.picture_sets import TAKE_OUT, PictureSet, Subset, left_out_notes, three_channels, with_fix
from genzoo.data.video_listing import list_all_clips
from genzoo.data.video_reader import VideoReader


class Videos(Protocol):
    """Numbered videos of any length. num_frames: 0 when it cannot be read.   read: arrays or PIL pictures."""

    def __len__(self) -> int: ...
    def num_frames(self, index: int) -> int: ...
    def where(self, index: int) -> str: ...
    def read(self, index: int, wanted: Sequence[int]) -> Iterator[tuple[int, Any]]: ...
    def content(self, index: int) -> bytes: ...


class ArrayVideos:
    """uint8 videos (n, frames, h, w, c) in memory, c = 1 or 3."""

    def __init__(self, array: Array, source: str = "the array") -> None:
        self.array, self.source = check_levels(array, source, dims=5), source

    def __len__(self) -> int:
        return len(self.array)

    def num_frames(self, index: int) -> int:
        return self.array.shape[1]

    def where(self, index: int) -> str:
        return f"{self.source}[{index}]"

    def read(self, index: int, wanted: Sequence[int]) -> Iterator[tuple[int, Array]]:
        return ((frame, three_channels(self.array[index, frame])) for frame in wanted)

    def content(self, index: int) -> bytes:
        return hashlib.sha256(self.array[index].tobytes()).digest()


class ClipSet:
    """Videos cut to one clip each, a PictureSet; read gives uint8 (frames, h, w, 3).

    Videos shorter than the window are left out and noted, as are those that cannot be read. frames: of a
    clip; None takes all of the first video's. stride: every how manieth frame. start: at a place drawn from
    (seed, video), or at the first frame for seed None.
    """

    def __init__(
        self, source: str | Path | Array, *, frames: int | None, stride: int = 1, seed: int | None = None
    ) -> None:
        self.videos, self.notes = open_videos(source)
        self.stride, self.seed = stride, seed
        self.lengths = [self.videos.num_frames(index) for index in range(len(self.videos))]
        self.frames = frames or max(1, -(-next(filter(None, self.lengths), 0) // stride))
        if frames is None:
            _require_one_length(self.videos, self.lengths)
        self.window = (self.frames - 1) * stride + 1
        self.usable = [index for index, length in enumerate(self.lengths) if length >= self.window]
        bad = [self.videos.where(index) for index, length in enumerate(self.lengths) if not length]
        self.short = len(self.lengths) - len(self.usable) - len(bad)
        if not self.usable:
            raise DataError(
                f"no video has {self.window} frames ({self.frames} at stride {stride})",
                why=f"{len(self.lengths)} found, the longest has {max(self.lengths, default=0)}",
            )
        if self.short:
            self.notes.append(f"{self.short} videos are shorter than {self.window} frames: left out")
        if bad:
            self.notes.append(f"{len(bad)} videos cannot be read: left out, such as {', '.join(bad[:3])}")

    def __len__(self) -> int:
        return len(self.usable)

    def name(self, index: int) -> str:
        return self.videos.where(self.usable[index])

    def read(self, index: int) -> Array:
        video = self.usable[index]
        start = self._start(video)
        wanted = range(start, start + self.window, self.stride)
        try:
            frames = [np.asarray(picture) for _, picture in self.videos.read(video, wanted)]
        except DataError as error:
            raise with_fix(error, TAKE_OUT) from error
        sizes = Counter(f"{frame.shape[0]} x {frame.shape[1]}" for frame in frames)
        if len(sizes) > 1:
            counted = ", ".join(f"{size} ({count})" for size, count in sizes.items())
            raise DataError(
                f"the frames of {self.videos.where(video)} have mixed sizes: {counted}",
                fix="bring the frames of a clip to one size, or take it out of the folder",
            )
        return np.stack(frames)

    def _start(self, video: int) -> int:
        if self.seed is None:
            return 0
        return mix_seed(self.seed, "clip start", video) % (self.lengths[video] - self.window + 1)

    def stamp(self, index: int) -> str | None:
        """Differs after an edit of the video, or for another cut of it; None of an array's."""
        if not isinstance(self.videos, VideoReader):
            return None
        cut = f"{self.frames} {self.stride} {self.seed} {self.usable[index]}"
        return f"{cut}|{self.videos.stamp(self.usable[index])}"

    def content(self, index: int) -> bytes:
        """Of the video's frames or file, and of the way its clip is cut."""
        cut = f"{self.frames} {self.stride} {self.seed} {self.usable[index]}\0"
        return cut.encode() + self.videos.content(self.usable[index])


def _require_one_length(videos: Videos, lengths: Sequence[int]) -> None:
    """Raise DataError for videos of unlike length, where nothing says how long a clip is."""
    known = [length for length in lengths if length]
    counts = {length: known.count(length) for length in dict.fromkeys(known)}
    if len(counts) > 1:
        said = ", ".join(f"{length} ({count})" for length, count in counts.items())
        other = next(index for index, length in enumerate(lengths) if length and length != known[0])
        raise DataError(
            f"clips have unlike lengths: {said}, first: {videos.where(other)}",
            why="this protocol judges whole clips, and they would not be of one kind",
            fix="bring them to one length, or take a protocol with a number of frames",
        )


def real_clips(source: str | Path | Array, cut: Mapping[str, Any], frames: int | None) -> ClipSet:
    """Films cut as a protocol's section `clips` says."""
    seed = cut["seed"] if cut["select"] == "random" else None
    return ClipSet(source, frames=frames, stride=cut["stride"], seed=seed)


def choose_clips(clips: PictureSet, num: int, *, select: str, seed: int) -> PictureSet:
    """The first `num` of the clips, or `num` drawn without replacement."""
    if select not in ("first", "random"):
        raise UsageError(f"clips are selected 'first' or 'random', not {select!r}")
    if select == "first":
        return Subset(clips, range(num))
    order: list[int] = torch.randperm(len(clips), generator=generator_for(seed, "clips")).tolist()
    return Subset(clips, order[:num])


def open_videos(source: str | Path | Array) -> tuple[Videos, list[str]]:
    """Video files and folders of frames, or an array (n, frames, h, w, 3); and notes on what was left out."""
    if isinstance(source, np.ndarray):
        return ArrayVideos(source), []
    path = Path(source).expanduser()
    if not path.is_dir():
        return ArrayVideos(read_array(path), f"{path.name}: arr_0"), []
    listing, left = list_all_clips(path)
    return VideoReader(listing, follow_links=True), left_out_notes(left)

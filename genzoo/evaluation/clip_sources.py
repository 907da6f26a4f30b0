"""Clips to be judged: from folders of video files or of frame folders, from arrays, or from a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from PIL import Image

from genzoo.core.errors import DataError, UsageError
from genzoo.core.seeds import generator_for, mix_seed
from genzoo.data.video_decode import VIDEO_EXTENSIONS, VideoFacts, probe, read_video
from genzoo.evaluation.image_sources import SUFFIXES, to_uint8

if TYPE_CHECKING:
    from genzoo.core.types import Dataset

Frames = np.ndarray[Any, Any]


class Clips(Protocol):
    """Numbered clips; read gives uint8 (frames, h, w, 3). short: videos left out.   cut: how, in words."""

    short: int
    cut: str

    def __len__(self) -> int: ...
    def take(self, num: int, *, select: str, seed: int) -> Clips:
        """The first `num` videos, or `num` drawn without replacement."""

    def read(self, index: int) -> Frames: ...
    def content_hash(self) -> str:
        """Of the files or frames, the selection and the way clips are cut."""


class ClipSet:
    """Videos cut to one clip each; read gives uint8 (frames, h, w, 3).

    Videos shorter than the window are left out and counted. frames: of a clip; None takes all of the first
    video's. stride: every how manieth frame. start: at a place drawn from (seed, video), or at the first
    frame for seed None.
    """

    def __init__(
        self, videos: Sequence[Path] | Frames, *, frames: int | None, stride: int = 1, seed: int | None = None
    ) -> None:
        self.videos, self.stride, self.seed = videos, stride, seed
        self.facts = [None if isinstance(v, np.ndarray) or v.is_dir() else probe(v) for v in videos]
        self.lengths = [_length(video, facts) for video, facts in zip(videos, self.facts, strict=True)]
        self.frames = frames or max(1, -(-self.lengths[0] // stride))
        self.window = (self.frames - 1) * stride + 1
        self.usable = [index for index, length in enumerate(self.lengths) if length >= self.window]
        self.short = len(self.lengths) - len(self.usable)
        self.cut = f"{self.frames} frames at stride {stride}"
        if not self.usable:
            raise DataError(
                f"no video has {self.window} frames ({self.cut})",
                why=f"{len(self.lengths)} found, the longest has {max(self.lengths, default=0)}",
            )

    def __len__(self) -> int:
        return len(self.usable)

    def take(self, num: int, *, select: str, seed: int) -> ClipSet:
        """The first `num` videos, or `num` drawn without replacement."""
        part = ClipSet.__new__(ClipSet)
        part.__dict__.update(self.__dict__)
        part.usable = [self.usable[index] for index in chosen(len(self), num, select, seed)]
        return part

    def read(self, index: int) -> Frames:
        video, facts = self.videos[self.usable[index]], self.facts[self.usable[index]]
        start = self._start(self.usable[index])
        wanted = range(start, start + self.window, self.stride)
        if isinstance(video, np.ndarray):
            return video[list(wanted)]
        if facts is not None:
            return np.stack([np.asarray(picture) for _, picture in read_video(video, facts, wanted)])
        return np.stack([_picture(_frame_files(video)[frame]) for frame in wanted])

    def _start(self, video: int) -> int:
        if self.seed is None:
            return 0
        return mix_seed(self.seed, "clip start", video) % (self.lengths[video] - self.window + 1)

    def content_hash(self) -> str:
        """Of the files or frames, the selection and the way clips are cut."""
        digest = hashlib.sha256(f"{self.frames} {self.stride} {self.seed}".encode())
        for index in self.usable:
            digest.update(f"{index}\0".encode())
            for part in _bytes_of(self.videos[index]):
                digest.update(part)
        return digest.hexdigest()


class DatasetClips:
    """The clips of a data set as it cuts them without a generator: the middle of each video, not mirrored."""

    short = 0
    cut = "as the data set cuts them, without augmentation"

    def __init__(self, dataset: Dataset, indices: Sequence[int] | None = None) -> None:
        if len(dataset.sample_shape) != 4:
            raise UsageError("the data set holds images, not clips", fix="name a reference of videos")
        self.dataset = dataset
        self.indices = range(len(dataset)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, num: int, *, select: str, seed: int) -> DatasetClips:
        """The first `num` items, or `num` drawn without replacement."""
        picked = [self.indices[index] for index in chosen(len(self), num, select, seed)]
        return DatasetClips(self.dataset, picked)

    def read(self, index: int) -> Frames:
        frames = to_uint8(self.dataset.fetch(self.indices[index])["pixels"])
        return np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames

    def content_hash(self) -> str:
        """Of the data set and the selection."""
        return hashlib.sha256(f"{self.dataset.fingerprint} {list(self.indices)}".encode()).hexdigest()


def chosen(count: int, num: int, select: str, seed: int) -> Sequence[int]:
    """Which `num` of `count` clips: the first, or drawn without replacement."""
    if select not in ("first", "random"):
        raise UsageError(f"clips are selected 'first' or 'random', not {select!r}")
    if select == "first":
        return range(num)
    order: list[int] = torch.randperm(count, generator=generator_for(seed, "clips")).tolist()
    return order[:num]


def find_videos(source: str | Path | Frames) -> Sequence[Path] | Frames:
    """Video files and folders of frames below a folder, sorted; or an array (n, frames, h, w, 3)."""
    if isinstance(source, np.ndarray):
        return _as_clips(source)
    path = Path(source)
    if path.is_dir():
        # a folder that `genzoo sample` wrote also holds an overview
        overview = set(path.glob("grid.*")) if (path / "samples.json").exists() else set()
        inside = [file for file in path.rglob("*") if file not in overview]
        files = {file for file in inside if file.suffix.lower() in VIDEO_EXTENSIONS}
        folders = {file.parent for file in inside if file.suffix.lower() in SUFFIXES}
        found = sorted(files | folders)
        if not found:
            raise DataError(f"there is no video and no folder of frames below {path}")
        return found
    if not path.is_file():
        raise DataError(f"there is no file or folder {path}")
    content = np.load(path, allow_pickle=False)
    return _as_clips(content if isinstance(content, np.ndarray) else content["arr_0"])


def _as_clips(array: Frames) -> Frames:
    if array.dtype != np.uint8 or array.ndim != 5 or array.shape[-1] not in (1, 3):
        raise DataError(f"clips must be uint8 (n, frames, h, w, 3), got {array.dtype} {array.shape}")
    return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array


def _length(video: Path | Frames, facts: VideoFacts | None) -> int:
    if isinstance(video, np.ndarray):
        return len(video)
    return len(_frame_files(video)) if facts is None else len(facts.times)


def _frame_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _picture(path: Path) -> Frames:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _bytes_of(video: Path | Frames) -> Iterator[bytes]:
    if isinstance(video, np.ndarray):
        yield np.ascontiguousarray(video).tobytes()
    else:
        for path in _frame_files(video) if video.is_dir() else [video]:
            yield path.read_bytes()

"""Video clips to be judged: folders of video files or of frame folders, and arrays; FVD on them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageSequence

from genzoo.core.errors import DataError, UsageError
from genzoo.core.optional import require
from genzoo.core.seeds import generator_for, mix_seed
from genzoo.evaluation.extraction import Features, extract, gather_features, shard
from genzoo.evaluation.features import FeatureNetwork, build_network
from genzoo.evaluation.images import SUFFIXES
from genzoo.evaluation.judging import (
    Notes,
    Settings,
    adjust,
    environment,
    must_match,
    name_of,
    note_counts,
    note_network,
)
from genzoo.evaluation.protocols import Protocol, load_protocol
from genzoo.evaluation.reference import Reference
from genzoo.evaluation.result import EvaluationResult
from genzoo.evaluation.scores import outputs_needed, score

if TYPE_CHECKING:
    from torch import Tensor

VIDEOS = {".mp4", ".webm", ".avi", ".mkv", ".mov", ".gif"}
Frames = np.ndarray[Any, Any]


class ClipSet:
    """Videos cut to one clip each; read gives uint8 (frames, h, w, 3).

    Videos shorter than frames * stride are left out and counted. stride: every how manieth frame. start: at a
    place drawn from (seed, video), or at the first frame for seed None.
    """

    def __init__(
        self, videos: Sequence[Path] | Frames, *, frames: int, stride: int = 1, seed: int | None = None
    ) -> None:
        self.videos, self.frames, self.stride, self.seed = videos, frames, stride, seed
        self.window = (frames - 1) * stride + 1
        lengths = [len(video) if isinstance(video, np.ndarray) else count_frames(video) for video in videos]
        self.lengths = lengths
        self.usable = [index for index, length in enumerate(lengths) if length >= self.window]
        self.short = len(lengths) - len(self.usable)
        if not self.usable:
            raise DataError(
                f"no video has {self.window} frames ({frames} at stride {stride})",
                why=f"{len(lengths)} found, the longest has {max(lengths, default=0)}",
            )

    def __len__(self) -> int:
        return len(self.usable)

    def take(self, num: int, *, select: str, seed: int) -> ClipSet:
        """The first `num` videos, or `num` drawn without replacement."""
        if select not in ("first", "random"):
            raise UsageError(f"clips are selected 'first' or 'random', not {select!r}")
        order = torch.randperm(len(self), generator=generator_for(seed, "clips")).tolist()
        chosen = range(num) if select == "first" else order[:num]
        part = ClipSet.__new__(ClipSet)
        part.__dict__.update(self.__dict__)
        part.usable = [self.usable[index] for index in chosen]
        return part

    def read(self, index: int) -> Frames:
        video = self.videos[self.usable[index]]
        start = self._start(self.usable[index])
        wanted = range(start, start + self.window, self.stride)
        if isinstance(video, np.ndarray):
            return video[list(wanted)]
        return np.stack(list(read_frames(video, wanted)))

    def _start(self, video: int) -> int:
        if self.seed is None:
            return 0
        return mix_seed(self.seed, "clip start", video) % (self.lengths[video] - self.window + 1)

    def content_hash(self) -> str:
        """Of the files or frames, the selection and the way clips are cut."""
        digest = hashlib.sha256(f"{self.frames} {self.stride} {self.seed}".encode())
        for index in self.usable:
            video = self.videos[index]
            digest.update(f"{index}\0".encode())
            for part in _bytes_of(video):
                digest.update(part)
        return digest.hexdigest()


def _bytes_of(video: Path | Frames) -> Iterator[bytes]:
    if isinstance(video, np.ndarray):
        yield np.ascontiguousarray(video).tobytes()
    else:
        for path in _frame_files(video) if video.is_dir() else [video]:
            yield path.read_bytes()


def find_videos(source: str | Path | Frames) -> Sequence[Path] | Frames:
    """Video files and folders of frames below a folder, sorted; or an array (n, frames, h, w, 3)."""
    if isinstance(source, np.ndarray):
        array = source
    else:
        path = Path(source)
        if path.is_dir():
            files = {file for file in path.rglob("*") if file.suffix.lower() in VIDEOS}
            folders = {file.parent for file in path.rglob("*") if file.suffix.lower() in SUFFIXES}
            found = sorted(files | folders)
            if not found:
                raise DataError(f"there is no video and no folder of frames below {path}")
            return found
        if not path.is_file():
            raise DataError(f"there is no file or folder {path}")
        content = np.load(path, allow_pickle=False)
        array = content if isinstance(content, np.ndarray) else content["arr_0"]
    if array.dtype != np.uint8 or array.ndim != 5 or array.shape[-1] not in (1, 3):
        raise DataError(f"clips must be uint8 (n, frames, h, w, 3), got {array.dtype} {array.shape}")
    return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array


def _frame_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def count_frames(video: Path) -> int:
    """Frames of a folder, an animation or a video file."""
    if video.is_dir():
        return len(_frame_files(video))
    if video.suffix.lower() == ".gif":
        with Image.open(video) as image:
            return int(getattr(image, "n_frames", 1))
    av = require("av", extra="video")
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        return int(stream.frames) or sum(1 for _ in container.decode(stream))


def read_frames(video: Path, wanted: range) -> Iterator[Frames]:
    """The wanted frames in order, each uint8 (h, w, 3). Raises DataError when the file ends before them."""
    decoded = _decode(video)
    missing = list(wanted)
    for index, frame in enumerate(decoded):
        if missing and index == missing[0]:
            yield np.asarray(frame)
            missing.pop(0)
        if not missing:
            return
    raise DataError(f"{video} ended before frame {missing[0]}")


def _decode(video: Path) -> Iterator[Frames | Image.Image]:
    if video.is_dir():
        for path in _frame_files(video):
            with Image.open(path) as image:
                yield image.convert("RGB")
    elif video.suffix.lower() == ".gif":
        with Image.open(video) as image:
            for frame in ImageSequence.Iterator(image):
                yield frame.convert("RGB")
    else:
        av = require("av", extra="video")
        with av.open(str(video)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")


def evaluate_clips(
    source: str | Path | Frames,
    *,
    protocol: str | Protocol,
    reference: str | Path | Frames,
    num: int | None = None,
    network: str | FeatureNetwork | Callable[[Tensor], Any] | None = None,
    weights: str | Path | None = None,
    sampling: dict[str, Any] | None = None,
    settings: Settings | None = None,
) -> EvaluationResult:
    """Judge videos by a protocol of kind `clips`.

    source, reference: a folder of videos or of frame folders, npz, or uint8 (n, frames, h, w, 3). Generated
    videos are read at stride 1 from their first frame; real ones as the protocol says.
    """
    started, settings, notes = time.time(), settings or Settings(), Notes()
    named = load_protocol(protocol)
    if named.kind != "clips":
        raise UsageError(f"{named.name} judges {named.kind}; evaluate_clips() judges clips")
    cut = named.clips
    generated = ClipSet(find_videos(source), frames=cut["frames"])
    used = adjust(named, num=num, available=len(generated), notes=notes)
    generated = generated.take(used.num, select="first", seed=cut["seed"])
    real = _real_clips(reference, used, notes)
    built = build_network(network or used.network, weights=weights, device=settings.device)
    note_network(named, built, notes)
    ddof = used.metrics.get("fvd", {}).get("ddof", 1)
    features = clip_features(generated, built, used, settings, "generated")
    other = clip_features(real, built, used, settings, "reference")
    gaussians = {name: part.gaussian(ddof=ddof) for name, part in other.statistics.items()}
    measured = Reference(real.content_hash(), gaussians, other.rows, other.count, other.constant)
    metrics = score(used.metrics, features, measured, label=built.label)
    note_counts(features, measured, built, notes)
    frames, height, width = generated.read(0).shape[:3]
    return EvaluationResult(
        protocol=named.name,
        metrics=metrics,
        comparable={
            **must_match(used, built),
            "generated clips": features.count,
            "clip size": f"{frames} x {height} x {width}",
            "reference": measured.content_hash,
        },
        generated={
            "num": features.count,
            "sha256": generated.content_hash(),
            "short videos left out": generated.short,
        },
        reference={"name": name_of(reference), "num": other.count, "sha256": measured.content_hash},
        network=built.describe(),
        sampling=dict(sampling or {}),
        differences=notes.differences,
        warnings=notes.warnings,
        choices=list(named.choices),
        environment=environment(settings, features, time.time() - started),
    )


def _real_clips(reference: str | Path | Frames, protocol: Protocol, notes: Notes) -> ClipSet:
    cut = protocol.clips
    seed = cut["seed"] if cut["select"] == "random" else None
    real = ClipSet(find_videos(reference), frames=cut["frames"], stride=cut["stride"], seed=seed)
    wanted = protocol.reference.get("num") or len(real)
    if len(real) < wanted:
        notes.differences.append(f"{len(real)} reference clips instead of {wanted}")
    if real.short:
        notes.warnings.append(
            f"{real.short} reference videos are shorter than {real.window} frames: left out"
        )
    return real.take(min(wanted, len(real)), select=cut["select"], seed=cut["seed"])


def clip_features(
    clips: ClipSet, network: FeatureNetwork, protocol: Protocol, settings: Settings, what: str
) -> Features:
    """This set's features, joined over processes; all clips must have one size."""
    statistics, rows = outputs_needed(protocol.metrics)
    data = _batches(clips, shard(len(clips)), max(1, settings.batch_size // 8))
    found = extract(
        data, network, statistics=statistics, rows=rows, on_batch=settings.report(what, len(clips))
    )
    return gather_features(found)


def _batches(clips: ClipSet, indices: range, batch_size: int) -> Iterator[tuple[Tensor, list[int]]]:
    size: tuple[int, ...] | None = None
    for start in range(0, len(indices), batch_size):
        part = indices[start : start + batch_size]
        arrays = [clips.read(index) for index in part]
        for array in arrays:
            size = size or array.shape
            if array.shape != size:
                raise DataError(f"videos have mixed sizes: {array.shape[1:3]} and {size[1:3]}")
        constant = [index for index, array in zip(part, arrays, strict=True) if array.min() == array.max()]
        yield torch.from_numpy(np.stack(arrays)).movedim(-1, 1), constant

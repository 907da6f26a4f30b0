"""Latents of videos, cached frame by frame: the clips cut from them are those of direct encoding."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("av")
from video_cases import frame_folder, video

from genzoo.core.errors import DataError, UsageError
from genzoo.core.seeds import SampleStreams, generator_for
from genzoo.data import frame_chunks
from genzoo.data.cached_clips import CachedClips
from genzoo.data.latent_cache import CacheReport, build_latent_cache
from genzoo.data.latent_check import check_latent_cache
from genzoo.data.sample_stream import SampleStream, batches
from genzoo.data.video_clips import VideoClips
from genzoo.data.video_folder import video_folder
from genzoo.data.video_reader import VideoReader


class MeanCodec:
    """Moments of pictures: 2 x 2 means, and a log-variance of -3; counts the pictures it encodes."""

    fingerprint = "mean"

    def __init__(self) -> None:
        self.encoded = 0

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        self.device = device

    def moments(self, pixels: Tensor) -> Tensor:
        self.encoded += pixels.shape[:-3].numel()
        mean = torch.nn.functional.avg_pool2d(pixels.flatten(0, -4), 2).unflatten(0, pixels.shape[:-3])
        return torch.cat([mean, torch.full_like(mean, -3)], dim=-3)

    def sample_moments(self, moments: Tensor, generator: SampleStreams) -> Tensor:
        mean, log_variance = moments.chunk(2, dim=-3)
        return mean + (0.5 * log_variance).exp() * generator.randn_like(mean)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "user"))
    monkeypatch.setattr(frame_chunks, "CHUNK", 4)  # so that a video has several


@pytest.fixture
def root(tmp_path: Path) -> Path:
    video(tmp_path / "data" / "a" / "1.mp4", 9, codec="libx264")
    video(tmp_path / "data" / "a" / "2.avi", 6)
    frame_folder(tmp_path / "data" / "b" / "clip", 7)
    return tmp_path / "data"


FRAMES = 9 + 6 + 7
SMALL = {"image_size": 8, "num_frames": 3, "frame_interval": 2, "use_image_num": 2}


def cached(root: Path, **options: Any) -> CachedClips:
    made = video_folder(
        root, **{**SMALL, "latent_cache": root.parent / "latents", "latent_dtype": "float32", **options}
    )
    assert isinstance(made, CachedClips)
    return made


def build(root: Path, codec: MeanCodec | None = None, **options: Any) -> CacheReport:
    settings = {key: options.pop(key) for key in ("num_workers", "prune", "progress") if key in options}
    return build_latent_cache(cached(root, **options), codec or MeanCodec(), batch_size=5, **settings)


def counts(report: CacheReport) -> tuple[int, int, int]:
    return report.reused, report.built, len(report.bad)


@pytest.mark.parametrize("options", [{}, {"fps": 8}, {"spacing": "linspace"}], ids=str)
def test_cached_clips_are_those_of_direct_encoding(root: Path, options: dict[str, Any]) -> None:
    if "fps" in options:  # pictures have no times
        shutil.rmtree(root / "b")
    codec = MeanCodec()
    build(root, codec, **options)
    made, direct = cached(root, **options), video_folder(root, **{**SMALL, **options})
    assert isinstance(direct, VideoClips)
    made.bind_codec(codec)
    assert made.sample_shape == direct.sample_shape
    assert made.fingerprint == direct.fingerprint
    for index in range(len(direct)):
        for generator in (None, *range(8)):
            pair = [None if generator is None else generator_for("a", generator) for _ in range(2)]
            item, wanted = made.fetch(index, pair[0]), direct.fetch(index, pair[1])
            assert torch.equal(item["moments"], codec.moments(wanted["pixels"]))
            assert torch.equal(item["image_moments"], codec.moments(wanted["image_pixels"]))
            assert torch.equal(item["image_labels"], wanted["image_labels"])
            assert torch.equal(item["class_labels"], wanted["class_labels"])


def test_every_frame_is_encoded_once_and_windows_share_them(root: Path) -> None:
    codec, seen = MeanCodec(), []
    assert counts(build(root, codec, progress=lambda *step: seen.append(step))) == (0, FRAMES, 0)
    assert codec.encoded == 2 * FRAMES  # each frame and its mirror image
    assert seen[-1] == (FRAMES, FRAMES)
    assert counts(build(root, codec)) == (FRAMES, 0, 0)
    longer = {"num_frames": 5, "frame_interval": 1, "use_image_num": 0}
    assert counts(build(root, codec, **longer)) == (FRAMES, 0, 0)
    assert codec.encoded == 2 * FRAMES
    made = cached(root, **longer)
    made.bind_codec(codec)
    assert made.fetch(0)["moments"].shape == (5, 6, 4, 4)


def test_workers_build_the_same_cache(root: Path) -> None:
    assert counts(build(root, num_workers=2)) == (0, FRAMES, 0)
    assert counts(build(root)) == (FRAMES, 0, 0)


def test_an_edited_video_alone_is_encoded_again(root: Path) -> None:
    build(root)
    os.utime(root / "a" / "2.avi", (1, 1))
    assert counts(build(root)) == (FRAMES, 0, 0)
    video(root / "a" / "1.mp4", 8, codec="libx264")
    with pytest.raises(DataError, match=r"(?s)does not fit the videos.*1\.mp4.*prepare latents"):
        cached(root).bind_codec(MeanCodec())
    report = build(root, prune=True)
    assert counts(report) == (FRAMES - 9, 8, 0)
    assert report.pruned == 9
    cached(root).bind_codec(MeanCodec())


def test_a_video_replaced_under_its_size_and_time_is_noticed(root: Path) -> None:
    build(root)
    check = check_latent_cache(cached(root), MeanCodec())
    assert (check.total, check.is_whole) == (FRAMES, True)
    film = root / "a" / "2.avi"
    before = film.stat()
    film.write_bytes(film.read_bytes()[:-1] + b"x")
    os.utime(film, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match=r"(?s)1 of 1 videos.*2\.avi"):
        cached(root).bind_codec(MeanCodec())
    assert [Path(name).name for name in check_latent_cache(cached(root), MeanCodec()).replaced] == ["2.avi"]


def test_binding_reads_no_video(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(root)
    made = cached(root)

    def forbidden(self: VideoReader, *arguments: Any, **options: Any) -> None:
        raise AssertionError("a video was read")

    monkeypatch.setattr(VideoReader, "content", forbidden)
    monkeypatch.setattr(VideoReader, "read", forbidden)
    made.bind_codec(MeanCodec())
    assert made.fetch(1)["moments"].shape == (3, 6, 4, 4)
    again = pickle.loads(pickle.dumps(made))
    assert torch.equal(again.fetch(2)["moments"], made.fetch(2)["moments"])


def test_bad_videos_are_named_once_and_left_to_max_bad(root: Path) -> None:
    (root / "a" / "1.mp4").write_bytes(b"torn")
    (root / "b" / "clip" / "6.png").write_bytes(b"torn")
    report = build(root)
    assert counts(report) == (0, FRAMES - 9 - 1, 2)
    assert ["1.mp4" in report.bad[0], "6.png" in report.bad[1]] == [True, True]
    made = cached(root)
    made.bind_codec(MeanCodec())
    with pytest.raises(DataError, match=r"1\.mp4"):
        made.fetch(0)
    batch = next(batches(SampleStream(made, seed=0, max_bad=2), batch_size=6, per_device=6))[0]
    assert batch["moments"].shape == (6, 3, 6, 4, 4)
    assert batch["image_moments"].shape == (6, 2, 6, 4, 4)


def test_without_a_codec_there_are_no_latents(root: Path) -> None:
    with pytest.raises(UsageError, match="there is no codec"):
        cached(root).bind_codec(None)
    with pytest.raises(UsageError, match="bind_codec"):
        cached(root).fetch(0)
    with pytest.raises(DataError, match="not as 'int8'"):
        cached(root, latent_dtype="int8")

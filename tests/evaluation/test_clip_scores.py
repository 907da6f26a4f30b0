"""Cutting clips, and FVD with the covariance of StyleGAN-V."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genzoo.core.errors import DataError, UsageError
from genzoo.evaluation.clip_sources import ClipSet, choose_clips, open_videos
from genzoo.evaluation.evaluate_clips import evaluate_clips
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.measures.frechet import frechet_distance
from genzoo.evaluation.protocols import load_protocol


def videos(n: int, frames: int = 20, seed: int = 0, level: float = 40.0) -> np.ndarray:
    """Clips whose every pixel tells its frame: 10 x the frame number, and noise."""
    random = np.random.default_rng(seed)
    time = 10 * np.arange(frames)[None, :, None, None, None]
    return np.clip(time + random.normal(0, level, (n, frames, 6, 7, 3)), 0, 255).astype(np.uint8)


def exact(n: int, frames: int) -> np.ndarray:
    return np.broadcast_to(
        np.arange(frames, dtype=np.uint8)[None, :, None, None, None], (n, frames, 4, 5, 3)
    ).copy()


def numbers(clip: np.ndarray) -> list[int]:
    return clip[:, 0, 0, 0].tolist()


def test_clips_start_at_the_first_frame_or_at_a_place_that_the_seed_decides() -> None:
    arrays = exact(6, 50)
    assert numbers(ClipSet(arrays, frames=16).read(2)) == list(range(16))
    spaced = ClipSet(arrays, frames=16, stride=3, seed=0)
    starts = [numbers(spaced.read(index))[0] for index in range(6)]
    assert len(set(starts)) > 1
    assert all(start + 45 < 50 for start in starts)
    assert numbers(spaced.read(1)) == list(range(starts[1], starts[1] + 46, 3))
    again = ClipSet(arrays, frames=16, stride=3, seed=0)
    assert [numbers(again.read(index))[0] for index in range(6)] == starts


def frame_folders(root: Path, lengths: list[int]) -> Path:
    for number, length in enumerate(lengths):
        (root / f"clip{number}").mkdir(parents=True)
        for index in range(length):
            Image.new("RGB", (5, 4), (index, 0, 0)).save(root / f"clip{number}" / f"{index:03d}.png")
    return root


def test_short_videos_are_left_out_and_counted(tmp_path: Path) -> None:
    clips = ClipSet(frame_folders(tmp_path, [5, 9, 8]), frames=4, stride=2)
    assert (len(clips), clips.short) == (2, 1)
    assert clips.read(0)[:, 0, 0, 0].tolist() == [0, 2, 4, 6]
    with pytest.raises(DataError, match="no video has 31 frames"):
        ClipSet(tmp_path, frames=16, stride=2)


def test_animations_are_read_frame_by_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 4), (60 * index, 0, 0)) for index in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    clip = ClipSet(tmp_path, frames=4).read(0)
    assert clip.shape == (4, 4, 5, 3)
    np.testing.assert_allclose(clip[:, 0, 0, 0], [0, 60, 120, 180], atol=2)


def test_mp4_files_are_decoded(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for index in range(6):
            picture = np.full((16, 32, 3), 30 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    clip = ClipSet(tmp_path, frames=3, stride=2).read(0)
    assert clip.shape == (3, 16, 32, 3)
    np.testing.assert_allclose(clip.mean((1, 2, 3)), [0, 60, 120], atol=8)


def test_random_selection_draws_without_replacement_and_repeats() -> None:
    clips = ClipSet(exact(12, 5), frames=5)
    taken = choose_clips(clips, 7, select="random", seed=1)
    assert len(set(taken.indices)) == 7
    assert taken.indices == choose_clips(clips, 7, select="random", seed=1).indices != list(range(7))
    assert list(choose_clips(clips, 7, select="first", seed=1).indices) == list(range(7))


def i3d_like(clips: torch.Tensor) -> dict[str, torch.Tensor]:
    mix = torch.randn(clips[0].numel(), 9, generator=torch.Generator().manual_seed(0))
    return {"pool": clips.float().flatten(1) @ mix / 255}


def test_fvd_divides_by_n() -> None:
    network = FeatureNetwork("i3d-kinetics400", i3d_like, ("pool",), "-", label="", is_video=True)
    generated, real = videos(40), videos(50, seed=1, level=60.0)
    result = evaluate_clips(
        generated, protocol="styleganv-fvd2048-16f", reference=real, num=40, network=network
    )
    rows = [
        i3d_like(torch.from_numpy(x[:, :16].copy()).movedim(-1, 1))["pool"].double()
        for x in (generated, real)
    ]
    moments = [value for x in rows for value in (x.mean(0), torch.cov(x.T, correction=0))]
    assert result.metrics["fvd"] == pytest.approx(frechet_distance(*moments), rel=1e-6)
    assert "50 reference clips instead of 2048" in result.differences
    assert result.comparable["clip size"] == "16 x 6 x 7"


def test_quick_video_needs_no_weights_and_grows_with_noise() -> None:
    real = videos(60, seed=1)
    scores = [
        evaluate_clips(videos(60, seed=2, level=level), protocol="quick-video", reference=real, num=60)
        for level in (40.0, 60.0, 90.0)
    ]
    values = [result.metrics["pixel_frechet"] for result in scores]
    assert values == sorted(values)
    assert any("rank-deficient" in line for line in scores[0].warnings)


def test_bad_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no video and no folder"):
        open_videos(tmp_path)
    with pytest.raises(DataError, match=r"it should be \(n, frames, h, w, 3\)"):
        open_videos(np.zeros((3, 4, 5, 3), np.uint8))
    with pytest.raises(UsageError, match="judges images"):
        evaluate_clips(videos(3), protocol="quick", reference=videos(3))
    with pytest.raises(UsageError, match="'first' or 'random'"):
        choose_clips(ClipSet(exact(3, 4), frames=2), 1, select="best", seed=0)
    assert load_protocol("latte-fvd2048-16f").clips["stride"] == 3

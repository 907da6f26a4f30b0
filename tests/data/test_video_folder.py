"""Clips from folders of videos: classes, windows, short and bad files, stills, and an order that stays."""

from __future__ import annotations

import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("av")
from video_cases import frame_folder, number_of, video

from genzoo.core.errors import DataError
from genzoo.core.seeds import generator_for
from genzoo.data.clip_windows import ClipWindow
from genzoo.data.sample_stream import SampleStream, batches
from genzoo.data.video_clips import VideoClips
from genzoo.data.video_folder import video_folder

SMALL = {"image_size": 8, "num_frames": 3, "frame_interval": 2}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, files and folders of pictures, of 6 to 12 frames."""
    root = tmp_path_factory.mktemp("videos")
    video(root / "jump" / "1.mp4", 12, codec="libx264")
    video(root / "jump" / "2.avi", 9)
    frame_folder(root / "run" / "clip1", 11)
    video(root / "run" / "deep" / "10.mkv", 6, codec="libx264")
    return root


@pytest.fixture
def root(classes: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(classes, tmp_path / "data"))


def open_folder(root: Path, **options: Any) -> VideoClips:
    clips = video_folder(root, **{**SMALL, "horizontal_flip": False, **options})
    assert isinstance(clips, VideoClips)
    return clips


def shown(pixels: Tensor) -> list[int]:
    """The frames that a clip shows."""
    return [number_of(frame * 127.5 + 127.5) for frame in pixels]


def test_files_and_folders_of_pictures_are_clips_with_their_folders_as_classes(classes: Path) -> None:
    clips = open_folder(classes)
    assert [Path(clips.path(i)).name for i in range(4)] == ["1.mp4", "2.avi", "clip1", "10.mkv"]
    assert clips.class_names == ["jump", "run"]
    items = [clips.fetch(index) for index in range(4)]
    assert [int(item["class_labels"]) for item in items] == [0, 0, 1, 1]
    assert all(item["pixels"].shape == clips.sample_shape == (3, 3, 8, 8) for item in items)
    # without a generator the window lies in the middle
    assert [shown(item["pixels"]) for item in items] == [[3, 5, 7], [2, 4, 6], [3, 5, 7], [0, 2, 4]]


def test_a_generator_draws_every_window_and_flips_half(classes: Path) -> None:
    clips = open_folder(classes, horizontal_flip=True)
    drawn = [clips.draw(1, generator_for("draw", seed)).clip for seed in range(200)]
    assert {view.frames[0] for view in drawn} == {0, 1, 2, 3, 4}
    assert 70 < sum(view.mirrored for view in drawn) < 130
    item = clips.fetch(1, generator_for("draw", 7))
    assert shown(item["pixels"]) == drawn[7].frames
    assert torch.equal(item["pixels"], clips.fetch(1, generator_for("draw", 7))["pixels"])


@pytest.mark.parametrize("transform", ["short_side_crop", "square_resize", "adm"])
def test_a_mirrored_clip_is_the_mirror_image(transform: str, tmp_path: Path) -> None:
    ramp = [np.tile(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], (24, 1, 3)) for _ in range(3)]
    video(tmp_path / "a.mkv", 3, codec="ffv1", pictures=ramp, pix_fmt="bgr0")
    clips = open_folder(tmp_path, horizontal_flip=True, transform=transform, frame_interval=1)
    seeds = {clips.draw(0, generator_for(seed)).clip.mirrored: seed for seed in range(20)}
    one, other = (clips.fetch(0, generator_for(seeds[mirrored]))["pixels"] for mirrored in (False, True))
    assert torch.equal(one, other.flip(-1))
    assert (one.diff(dim=-1) > 0).all()
    assert -0.8 < one.min() < one.max() < 0.8  # the sides of the wide picture are cut off


@pytest.mark.parametrize(
    ("spacing", "short", "total", "frames"),
    [
        ("stride", "drop", 46, list(range(0, 46, 3))),
        ("linspace", "drop", 48, [0, 3, 6, 9, 12, 15, 18, 21, 25, 28, 31, 34, 37, 40, 43, 47]),
        ("linspace", "squeeze", 29, [0, 1, 3, 5, 7, 9, 11, 13, 14, 16, 18, 20, 22, 24, 26, 28]),
        ("stride", "squeeze", 16, list(range(16))),
    ],
)
def test_windows_of_the_protocols(spacing: Any, short: Any, total: int, frames: list[int]) -> None:
    window = ClipWindow(16, 3, spacing, short)
    assert window.fits(total)
    assert window.fits(total - 1) == (short == "squeeze" and total > 16)
    assert window.frames(total, None) == frames
    starts = {window.frames(total + 3, generator_for(seed))[0] for seed in range(60)}
    assert starts == ({0, 1, 2, 3} if short == "drop" else {0})


def test_short_videos_are_left_out_refused_or_squeezed(
    classes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert len(open_folder(classes, frame_interval=5)) == 2
    assert "2 of 4 videos are too short for 3 frames and are left out" in caplog.text
    assert "10.mkv (6)" in caplog.text
    assert len(open_folder(classes, min_frames=12)) == 1
    with pytest.raises(DataError, match=r"(?s)2 of 4 videos are too short.*spans 11 frames"):
        open_folder(classes, frame_interval=5, short="error")
    with pytest.raises(DataError, match="4 of 4 videos are too short"):
        open_folder(classes, frame_interval=9)
    squeezed = open_folder(classes, frame_interval=9, short="squeeze")
    assert shown(squeezed.fetch(3)["pixels"]) == [0, 2, 5]


def test_at_a_frame_rate_the_frame_on_screen_is_shown(tmp_path: Path) -> None:
    video(tmp_path / "vfr.mkv", 6, codec="ffv1", times=[0, 100, 150, 500, 900, 1000])
    clips = open_folder(tmp_path, num_frames=6, frame_interval=1, fps=5)
    assert clips.lengths.tolist() == [6]  # at 0, 200, ..., 1000 ms
    assert shown(clips.fetch(0)["pixels"]) == [0, 2, 2, 3, 3, 5]
    assert shown(open_folder(tmp_path, num_frames=6, frame_interval=1).fetch(0)["pixels"]) == list(range(6))
    fast = open_folder(tmp_path, num_frames=4, frame_interval=1, fps=20)
    assert fast.lengths.tolist() == [21]


def test_a_folder_of_pictures_has_no_frame_rate(classes: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)has no times.*clip1.*data\.fps null"):
        open_folder(classes, fps=8)


def test_unreadable_files_are_named_counted_and_keep_their_place(root: Path) -> None:
    (root / "jump" / "1.mp4").write_bytes(b"torn")
    (root / "run" / "clip1" / "5.png").write_bytes(b"torn too")
    clips = open_folder(root, use_image_num=2)
    assert len(clips) == 4
    with pytest.raises(DataError, match=r"jump/1\.mp4"):
        clips.fetch(0)
    (root / "run" / "deep" / "10.mkv").unlink()
    with pytest.raises(DataError, match=r"clip1/5\.png"):
        clips.fetch(2)
    with pytest.raises(DataError, match=r"deep/10\.mkv"):
        clips.fetch(3)
    micro = next(batches(SampleStream(clips, seed=0, max_bad=2), batch_size=4, per_device=4))[0]
    assert len(micro["bad"]) == 2
    assert micro["pixels"].shape == (4, 3, 3, 8, 8)
    with pytest.raises(DataError, match="max_bad=1 may be replaced"):
        next(batches(SampleStream(clips, seed=0, max_bad=1), batch_size=4, per_device=4))


def test_a_video_that_fails_at_one_place_is_replaced_there_alone(root: Path) -> None:
    (root / "run" / "clip1" / "0.png").write_bytes(b"torn")
    clips = open_folder(root)
    streams = [SampleStream(clips, seed=1, max_bad=1) for _ in range(2)]
    indices = [streams[0].fetch(position)["index"] for position in range(60)]
    late = [streams[1].fetch(position)["index"] for position in range(30, 60)]
    assert indices[30:] == late  # what was read before makes no difference
    wanted = [streams[0].index(position) for position in range(60)]
    replaced = [position for position in range(60) if indices[position] != wanted[position]]
    assert replaced
    assert {wanted[position] for position in replaced} == {2}
    assert 2 in indices


def test_the_order_is_the_same_after_a_resume_and_in_workers(classes: Path) -> None:
    clips = open_folder(classes, use_image_num=1, horizontal_flip=True)
    keys = ("pixels", "image_pixels", "image_labels", "class_labels", "index")

    def steps(start: int, workers: int = 0) -> list[Tensor]:
        stream = batches(
            SampleStream(clips, seed=5), batch_size=2, per_device=2, start_step=start, num_workers=workers
        )
        found = [next(stream)[0] for _ in range(4 - start)]
        return [step[key] for step in found for key in keys]

    everything = steps(0)
    for part in (steps(2), steps(2, workers=2)):
        assert all(torch.equal(a, b) for a, b in zip(everything[2 * len(keys) :], part, strict=True))


def test_stills_are_frames_of_readable_videos_with_their_labels(root: Path) -> None:
    (root / "jump" / "1.mp4").write_bytes(b"torn")
    (root / "run" / "clip1" / "5.png").write_bytes(b"torn too")
    clips = open_folder(root, use_image_num=3)
    seen = set()
    for seed in range(20):
        item = clips.fetch(1, generator_for("stills", seed))
        draw = clips.draw(1, generator_for("stills", seed))
        assert item["image_pixels"].shape == (3, 3, 8, 8)
        firsts = [next(v for v in views if (v.video, v.frames) != (2, [5])) for views in draw.stills]
        assert shown(item["image_pixels"]) == [view.frames[0] for view in firsts]
        assert item["image_labels"].tolist() == [int(clips.labels[view.video]) for view in firsts]
        seen |= {view.video for view in firsts}
    assert seen == {1, 2, 3}


def test_a_data_set_travels_to_workers_and_keeps_its_fingerprint(root: Path, tmp_path: Path) -> None:
    clips = open_folder(root)
    again = pickle.loads(pickle.dumps(clips))
    assert torch.equal(again.fetch(3)["pixels"], clips.fetch(3)["pixels"])
    moved = open_folder(Path(shutil.copytree(root, tmp_path / "elsewhere")))
    assert moved.fingerprint == clips.fingerprint
    assert open_folder(root, frame_interval=1).fingerprint != clips.fingerprint
    video(root / "jump" / "1.mp4", 11, codec="libx264")
    assert open_folder(root).fingerprint != clips.fingerprint
    with pytest.raises(DataError, match="changed after it was indexed"):
        clips.fetch(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transform": "exact"}, r"(?s)32 x 24 pixels, not 8 x 8.*1\.mp4"),
        ({"transform": "short_side"}, "did you mean 'short_side_crop'"),
        ({"spacing": "even"}, "spacing is 'even'"),
        ({"short": "loop"}, "short is 'loop'"),
        ({"fps": 0}, "fps is 0"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"channels": 4}, "channels 1 or 3"),
        ({"class_names": ["jmup"]}, "did you mean 'jump'"),
    ],
)
def test_wrong_settings_are_refused(classes: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_folder(classes, **options).fetch(0)


def test_one_channel_is_grey(classes: Path) -> None:
    clips = open_folder(classes, channels=1)
    assert clips.sample_shape == (3, 1, 8, 8)
    assert [shown(clips.fetch(index)["pixels"]) for index in (0, 2)] == [[3, 5, 7], [3, 5, 7]]

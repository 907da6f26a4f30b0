"""Clips as files: every frame is kept, and overviews say what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.data.own_outputs import is_overview
from genzoo.pictures.animation import make_animation
from genzoo.pictures.clip_files import read_clip, read_frames, write_clip


def clip(frames: int, channels: int, seed: int = 0, height: int = 10, width: int = 13) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, channels, height, width), generator=generator).byte()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", [[0, 0, 0], [0, 1, 1, 0, 0], [0], [0, 1, 2]])
def test_a_gif_keeps_frames_that_equal_their_neighbours(
    order: list[int], channels: int, tmp_path: Path
) -> None:
    frames = clip(3, channels)[order]
    path = write_clip(tmp_path / "a.gif", frames, fps=4)
    assert torch.equal(read_clip(path), frames.expand(-1, 3, -1, -1))  # few enough colours to be exact
    with Image.open(path) as picture:
        assert picture.info.get("duration") == 250
        assert picture.info.get("loop") == 0


def test_every_decoder_counts_the_same_frames(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from genzoo.data.video_decode import probe, read_video

    frames = clip(2, 3)[[0, 0, 1, 1, 1]]
    path = write_clip(tmp_path / "a.gif", frames)
    facts = probe(path)
    shown = [np.asarray(picture) for _, picture in read_video(path, facts, range(len(facts.times)))]
    assert np.array_equal(np.stack(shown), frames.movedim(1, -1).numpy())
    np.testing.assert_allclose(np.diff(facts.seconds), 0.12)


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_an_overview_of_clips_says_so_and_a_clip_does_not(suffix: str, tmp_path: Path) -> None:
    if suffix == ".mp4":
        pytest.importorskip("av")
    sheet = make_animation(torch.stack([clip(3, 3), clip(3, 3, 1)])).save(tmp_path / f"any{suffix}")
    assert is_overview(sheet)
    assert not is_overview(write_clip(tmp_path / f"one{suffix}", clip(3, 3, height=12, width=14)))


def test_frames_are_read_back_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (1000, 999, 0):
        Image.new("L", (3, 2), number % 256).save(tmp_path / f"{number:03d}.png")
    assert read_frames(tmp_path)[:, 0, 0, 0].tolist() == [0, 999 % 256, 1000 % 256]


@pytest.mark.parametrize(
    "script", ["ffconcat version 1.0\nfile other.mp4\n", "#EXTM3U\n#EXTINF:1,\nother.mp4\n"]
)
def test_a_script_in_the_place_of_a_film_reads_no_other_file(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    write_clip(tmp_path / "other.mp4", clip(2, 3, height=12, width=14))
    (tmp_path / "0.mp4").write_text(script)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"0\.mp4"):
        read_clip(tmp_path / "0.mp4")

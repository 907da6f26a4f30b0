"""A film holds every frame that was written, equal neighbours too, at a rate that can be shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genzoo.core.errors import UsageError
from genzoo.data.video_decode import probe, read_video
from genzoo.pictures.animation import SIZE, SIZE_KEY, own_size
from genzoo.pictures.clip_files import read_clip, write_clip


def still_clip(channels: int, height: int, width: int) -> torch.Tensor:
    """Six frames, 0 = 1 = 2 and 4 = 5, in few colours."""
    generator = torch.Generator().manual_seed(7)
    kinds = torch.randint(0, 4, (3, channels, height, width), generator=generator, dtype=torch.uint8) * 80
    return kinds[[0, 0, 0, 1, 2, 2]]


@pytest.mark.parametrize("size", [(7, 5), (16, 9), (8, 6)])
def test_a_film_holds_equal_neighbours(tmp_path: Path, size: tuple[int, int]) -> None:
    pytest.importorskip("av")
    clip = still_clip(3, 1, 1).expand(-1, -1, *size)
    back = read_clip(write_clip(tmp_path / "a.mp4", clip))
    assert back.shape == (6, 3, *size)
    assert (back.int() - clip.int()).abs().max() <= 6


@pytest.mark.parametrize("fps", [0, -3, float("nan"), float("inf"), 1e9, True])
def test_frames_a_second_are_a_positive_number(tmp_path: Path, fps: float) -> None:
    with pytest.raises(UsageError, match="fps is"):
        write_clip(tmp_path / "a.gif", torch.zeros(2, 3, 4, 4, dtype=torch.uint8), fps=fps)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(13, 16), (16, 11), (13, 11), (14, 12)], ids=str)
def test_films_of_every_size_come_back_at_their_own(tmp_path: Path, size: tuple[int, int]) -> None:
    pytest.importorskip("av")
    width, height = size
    ramp = torch.linspace(0, 200, height)[:, None] + torch.linspace(0, 55, width)
    clip = ramp.to(torch.uint8).expand(4, 3, height, width).contiguous()
    path = write_clip(tmp_path / "clip.mp4", clip)
    found = read_clip(path)
    assert found.shape == clip.shape
    assert (found.int() - clip.int()).abs().max() < 24  # H.264 with colour at half the size
    frames = dict(read_video(path, probe(path), [0, 3]))
    assert [frames[number].size for number in (0, 3)] == [size, size]


def test_a_size_that_the_file_cannot_have_is_not_believed() -> None:
    assert own_size({SIZE_KEY: f"{SIZE} 13x11"}, (14, 12)) == (13, 11)
    assert own_size({SIZE_KEY: f"{SIZE} 3x11"}, (14, 12)) == (14, 12)
    assert own_size({SIZE_KEY: "a film 13x11"}, (14, 12)) == (14, 12)
    assert own_size({}, (14, 12)) == (14, 12)

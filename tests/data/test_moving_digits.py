"""Moving digits: what a clip shows, how it moves, and that it is the same everywhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.core.registry import DATASETS
from genzoo.data.digits import Digits
from genzoo.data.moving_digits import MovingDigits


def corner(frame: Tensor) -> tuple[int, int]:
    """Where the digit stands, from the first and last row and column that are not black."""
    rows = (frame > -1).any(1).nonzero().flatten()
    columns = (frame > -1).any(0).nonzero().flatten()
    return int(rows[0]), int(columns[0])


def test_every_frame_holds_the_whole_digit_on_black() -> None:
    clips, digits = MovingDigits(num_frames=5, image_size=13), Digits()
    for index in (0, 7, 1797, 4 * 1797 - 1):
        item = clips.fetch(index)
        digit = digits.fetch(index % 1797)
        assert item["pixels"].shape == clips.sample_shape == (5, 1, 13, 13)
        assert item["class_labels"] == digit["class_labels"]
        for frame in item["pixels"][:, 0]:
            assert torch.equal(frame.flatten().sort().values[-64:], digit["pixels"].flatten().sort().values)
            assert (frame == -1).sum() >= 13 * 13 - 64


def test_a_digit_moves_in_straight_lines_and_bounces() -> None:
    clips = MovingDigits(num_frames=30, max_speed=2)
    steps = clips.corners.diff(dim=1)
    assert steps.abs().max() == 2
    assert clips.corners.min() == 0
    assert clips.corners.max() == 8
    inside = (clips.corners[:, 1:-1] > 1) & (clips.corners[:, 1:-1] < 7)
    assert torch.equal(steps[:, 1:][inside], steps[:, :-1][inside])
    assert (steps > 0).any(1).all()
    assert (steps < 0).any(1).all()
    first, second = (corner(frame[0]) for frame in clips.fetch(3)["pixels"][:2])
    moved = tuple(b - a for a, b in zip(first, second, strict=True))
    assert moved == tuple(steps[3, 0].tolist())


def test_clips_depend_on_their_digit_and_not_on_the_split() -> None:
    everything, test = MovingDigits(clips_per_digit=2), MovingDigits(clips_per_digit=2, split="test")
    assert (len(everything), len(test)) == (3594, 718)
    assert torch.equal(test.fetch(0)["pixels"], everything.fetch(4)["pixels"])
    assert torch.equal(test.fetch(359)["pixels"], everything.fetch(1797 + 4)["pixels"])
    assert not torch.equal(everything.fetch(4)["pixels"], everything.fetch(1797 + 4)["pixels"])
    assert everything.fingerprint == MovingDigits(clips_per_digit=2).fingerprint != test.fingerprint


def test_many_at_once_are_the_clips_one_by_one() -> None:
    clips = MovingDigits(use_image_num=2)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    batch = clips.fetch_many([5, 900], generators)
    for row, index in enumerate((5, 900)):
        item = clips.fetch(index, torch.Generator().manual_seed(row + 1))
        assert item.keys() == batch.keys()
        assert all(torch.equal(batch[key][row], value) for key, value in item.items())


def test_stills_are_frames_of_the_set_with_their_labels() -> None:
    clips = MovingDigits(use_image_num=3, clips_per_digit=1)
    assert clips.augments
    item = clips.fetch(0, torch.Generator().manual_seed(0))
    assert item["image_pixels"].shape == (3, 1, 16, 16)
    images = clips.digits.flatten(1)
    for still, label in zip(item["image_pixels"], item["image_labels"], strict=True):
        values = still.flatten().sort().values[-64:]
        same = (images.sort(1).values == values).all(1)
        assert label in clips.labels[same]
    assert not torch.equal(
        clips.fetch(0, torch.Generator().manual_seed(1))["image_pixels"], item["image_pixels"]
    )
    assert torch.equal(clips.fetch(0)["image_pixels"], clips.fetch(0)["image_pixels"])
    assert "image_pixels" not in MovingDigits().fetch(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 8}, "image_size 8"),
        ({"num_frames": 0}, "num_frames 0"),
        ({"max_speed": 9}, "max_speed 9"),
        ({"split": "tset"}, "no split 'tset'"),
        ({"use_image_num": -1}, "use_image_num -1"),
    ],
)
def test_wrong_moving_digits_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        DATASETS.get("moving_digits")(**options)


def test_a_grid_holds_every_place_and_speed() -> None:
    clips = MovingDigits(image_size=16, num_frames=9, max_speed=4, grid=2)
    assert sorted(clips.corners.unique().tolist()) == [0, 2, 4, 6, 8]
    assert sorted(clips.corners.diff(dim=1).abs().unique().tolist()) == [0, 2, 4]
    assert torch.equal(clips.corners, 2 * MovingDigits(image_size=12, num_frames=9, max_speed=2).corners)


@pytest.mark.parametrize("grid", [0, 3, 8])
def test_a_grid_that_does_not_fit_is_named(grid: int) -> None:
    with pytest.raises(DataError, match=f"grid {grid} does not divide"):
        MovingDigits(image_size=16, max_speed=2, grid=grid)

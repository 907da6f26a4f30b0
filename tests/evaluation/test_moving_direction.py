"""Where clips go, on clips whose answer is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from evaluation.fixed_run import FixedRun

from genzoo.core.errors import DataError
from genzoo.data.digits import Digits
from genzoo.data.moving_emoji import MovingEmoji
from genzoo.evaluation.moving_direction import moving_direction, ways

EMOJI: dict[str, Any] = {"image_size": 24, "num_frames": 5, "classes": "motion_name", "grid": 2}
CLIPS = MovingEmoji(**EMOJI, styles=["noto"], names=["cat face", "red apple"], clips_per_emoji=4)


def fixed_run(change: Any = lambda clips: clips, dataset: Any = CLIPS) -> Any:
    """A run that samples real clips of the class asked for, changed in a known way."""
    return FixedRun(CLIPS, change, dataset)


def test_real_clips_go_where_their_classes_say() -> None:
    found = moving_direction(fixed_run(), num=20)
    assert found == {"direction": 1.0, "real_direction": 1.0, "chance": pytest.approx(0.2)}


@pytest.mark.parametrize(
    ("change", "right"),
    [
        (lambda clips: clips.flip(1), 0.2),  # played backwards only those that stay are right
        (lambda clips: clips[:, :1].expand_as(clips), 0.2),
        (lambda clips: clips.flip(-1), 0.6),  # left and right are exchanged
        (lambda clips: clips.flip(-2), 0.6),
        (lambda clips: clips + 0.02 * torch.randn_like(clips), 1.0),
    ],
    ids=["backwards", "frozen", "mirrored", "upside down", "noisy"],
)
def test_clips_that_go_elsewhere_are_found(change: Any, right: float) -> None:
    torch.manual_seed(0)
    assert moving_direction(fixed_run(change), num=20)["direction"] == pytest.approx(right)


@pytest.mark.parametrize("background", [-1.0, 0.3, 1.0])
def test_ways_are_in_pixels_on_any_background(background: float) -> None:
    clips = torch.full((1, 3, 3, 12, 16), background)
    for frame, (row, column) in enumerate([(1, 9), (3, 6), (6, 2)]):
        clips[:, frame, :, row : row + 3, column : column + 3] = -background if background != 0.3 else 1.0
    assert ways(clips).tolist() == [[pytest.approx(5), pytest.approx(-7)]]


def test_an_empty_clip_stays() -> None:
    assert ways(torch.ones(2, 4, 3, 8, 8)).tolist() == [[0, 0], [0, 0]]


def test_pictures_and_single_frames_are_refused() -> None:
    with pytest.raises(DataError, match="at least two frames with classes"):
        moving_direction(fixed_run(dataset=Digits()))
    with pytest.raises(DataError, match="at least two frames with classes"):
        moving_direction(fixed_run(dataset=MovingEmoji(num_frames=1, sprite_size=8, image_size=16)))

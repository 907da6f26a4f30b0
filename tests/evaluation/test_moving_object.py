"""The numbers for clips of a moving object, on clips whose answer is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from evaluation.fixed_run import FixedRun
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.data.digits import Digits
from genzoo.data.moving_digits import MovingDigits
from genzoo.evaluation.moving_object import moving_object, track

CLIPS = MovingDigits(num_frames=5, clips_per_digit=1, split="train")
UNSEEN = MovingDigits(num_frames=5, clips_per_digit=1, split="test")


def fixed_run(change: Any = lambda clips: clips, dataset: Any = CLIPS) -> Any:
    """A run that samples unseen real clips of the class asked for, changed in a known way."""
    return FixedRun(UNSEEN, change, dataset)


def frozen(clips: Tensor) -> Tensor:
    return clips[:, :1].expand_as(clips)


def other_digit_at_the_end(clips: Tensor) -> Tensor:
    return torch.cat([clips[:, :-1], clips.roll(3, 0)[:, -1:]], dim=1)


def other_digits_in_between(clips: Tensor) -> Tensor:
    return torch.cat([clips[:, :1], clips[:, 1:-1].roll(3, 0), clips[:, -1:]], dim=1)


def test_real_clips_are_right_move_and_stay_themselves() -> None:
    found = moving_object(fixed_run(), num=100)
    assert found["accuracy"] > 0.9
    assert found["motion"] == pytest.approx(1, abs=0.15)
    assert found["constancy"] == pytest.approx(1, abs=0.02)


def test_real_clips_show_how_far_this_judge_can_be_trusted() -> None:
    found = moving_object(fixed_run(), num=100)
    assert 0.9 < found["real_accuracy"] < 1  # it would be 1 if each clip voted on itself alone


def test_no_clip_votes_on_itself() -> None:
    alone = MovingDigits(num_frames=2, clips_per_digit=1, split="test")
    row = torch.arange(6)
    six = track(torch.stack([alone.fetch(int(index))["pixels"] for index in row]), 8)
    with_itself = six.classes(six.windows[:, 0], row, 1)
    assert (with_itself == row[:, None]).all()
    assert (six.classes(six.windows[:, 0], row, 1, own=True) != row[:, None]).all()
    assert (six.first(2).classes(six.windows[:, 0], row, 1, own=True) != row[:2, None]).all()


def test_each_failure_shows_in_its_own_number() -> None:
    still = moving_object(fixed_run(frozen), num=60)
    assert still["motion"] == 0
    assert still["constancy"] == 1
    assert still["accuracy"] > 0.9
    swapped = moving_object(fixed_run(other_digit_at_the_end), num=60)
    assert swapped["constancy"] < 0.8
    assert swapped["accuracy"] == pytest.approx(0.8, abs=0.1)
    between = moving_object(fixed_run(other_digits_in_between), num=60)
    assert between["constancy"] < 0.3  # though the last frame shows the first one's digit
    wrong = moving_object(fixed_run(lambda clips: clips.roll(1, 0)), num=60)
    assert wrong["accuracy"] < 0.1
    assert wrong["constancy"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("deviation", [0.01, 0.1])
def test_noise_that_nobody_sees_changes_no_number(deviation: float) -> None:
    noise = deviation * torch.randn(100, 5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    clean, noisy = moving_object(fixed_run(), num=100), moving_object(fixed_run(lambda c: c + noise), num=100)
    assert noisy["accuracy"] == pytest.approx(clean["accuracy"], abs=0.02)
    assert noisy["motion"] == pytest.approx(clean["motion"], abs=0.01)
    assert noisy["constancy"] > 1 - 3 * deviation


def test_too_few_real_clips_to_vote_are_refused() -> None:
    with pytest.raises(DataError, match="3 nearest neighbours need at least 3 real clips, got 2"):
        moving_object(fixed_run(), num=10, reference=2)


def test_the_window_follows_the_object() -> None:
    clips = torch.full((1, 3, 1, 7, 9), -1.0)
    for frame, (row, column) in enumerate([(0, 0), (2, 3), (4, 6)]):
        clips[0, frame, 0, row : row + 3, column : column + 3] = 0.5
    found = track(clips, 3)
    assert found.corners.tolist() == [[[0, 0], [2, 3], [4, 6]]]
    assert (found.windows == 0.5).all()
    assert found.windows.shape == (1, 3, 9)
    assert found.speed == pytest.approx(13**0.5)


def test_other_data_are_refused() -> None:
    with pytest.raises(DataError, match="needs clips with classes"):
        moving_object(fixed_run(dataset=Digits()))
    with pytest.raises(DataError, match="clips of at least two frames"):
        moving_object(fixed_run(dataset=MovingDigits(num_frames=1)))
    with pytest.raises(DataError, match="no window of 17 x 17"):
        moving_object(fixed_run(), window=17)

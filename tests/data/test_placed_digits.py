"""Placed digits: single frames of moving digits, as images."""

from __future__ import annotations

import pytest
import torch

from genzoo.core.errors import DataError
from genzoo.data.digits import Digits
from genzoo.data.placed_digits import PlacedDigits


def test_an_image_is_a_whole_digit_somewhere_on_black() -> None:
    images, digits = PlacedDigits(image_size=13, places_per_digit=2), Digits()
    assert len(images) == 2 * 1797
    for index in (0, 7, 1797):
        item, digit = images.fetch(index), digits.fetch(index % 1797)
        assert item["pixels"].shape == images.sample_shape == (1, 13, 13)
        assert item["class_labels"] == digit["class_labels"]
        seen = item["pixels"].flatten().sort().values[-64:]
        assert torch.equal(seen, digit["pixels"].flatten().sort().values)


def test_every_place_of_the_canvas_is_used() -> None:
    corners = PlacedDigits(image_size=12)._clips.corners[:, 0]
    assert len(corners.unique(dim=0)) == 5 * 5


def test_many_at_once_are_the_images_one_by_one() -> None:
    images = PlacedDigits(split="test")
    batch = images.fetch_many([3, 0], [None, None])
    assert batch["pixels"].shape == (2, 1, 16, 16)
    assert torch.equal(batch["pixels"][0], images.fetch(3)["pixels"])
    assert batch["class_labels"][1] == images.fetch(0)["class_labels"]


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(DataError, match="image_size 8"):
        PlacedDigits(image_size=8)

"""What samples were to follow is seen in their overview."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from genzoo.api.sampling.beside import grid_beside
from genzoo.api.sampling.samples import Samples

HEIGHT, WIDTH, GAP, ABOVE, ZOOM = 30, 34, 2, 14, 2  # cells below a caption are 64 pixels high or more


def cell(grid: Image.Image, column: int) -> np.ndarray:
    left, top = GAP + column * (ZOOM * WIDTH + 2 * GAP), ABOVE
    box = (left, top, left + ZOOM * WIDTH, top + ZOOM * HEIGHT)
    return np.asarray(grid.convert("RGB").crop(box))[::ZOOM, ::ZOOM]


def levels(*values: int) -> torch.Tensor:
    return torch.stack([torch.full((3, HEIGHT, WIDTH), value, dtype=torch.uint8) for value in values])


def test_one_control_of_all_samples_comes_first_and_once() -> None:
    images, control = levels(10, 20, 30), (levels(255, 255, 255).float() / 127.5 - 1)
    grid = grid_beside(images, {"control": control, "class_labels": torch.arange(3)}, columns=9).image
    found = [int(cell(grid, column).mean()) for column in range(4)]
    assert found == [255, 10, 20, 30]
    assert cell(grid, 0).shape == (HEIGHT, WIDTH, 3)


def test_a_control_of_each_stands_in_front_of_them() -> None:
    images, control = levels(10, 20), levels(0, 255).float() / 127.5 - 1
    grid = Samples(images.float() / 127.5 - 1, {"control": control}).grid(columns=9).image
    assert [int(cell(grid, column).mean()) for column in range(4)] == [0, 255, 10, 20]


def test_what_is_no_picture_of_the_samples_size_is_not_shown() -> None:
    images = levels(10, 20)
    plain = grid_beside(images, {}).image
    others = {
        "image": torch.zeros(2, 3, HEIGHT, WIDTH + 1),
        "redraw": torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool),
        "control_guidance": ["both_halves"] * 2,
    }
    assert np.array_equal(np.asarray(grid_beside(images, others).image), np.asarray(plain))

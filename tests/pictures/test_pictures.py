"""Levels and numbers are each other's way back; grids show what they are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genzoo.core.errors import ShapeError
from genzoo.data.own_outputs import is_overview
from genzoo.pictures.grid import make_grid, make_sheet
from genzoo.pictures.pixels import from_uint8, nearest_levels, png, to_pil, to_uint8

LEVELS = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize(
    "back", [to_uint8, lambda pixels: nearest_levels(pixels).byte()], ids=["sample", "data"]
)
def test_every_level_comes_back_from_its_number(back) -> None:  # type: ignore[no-untyped-def]
    pixels = from_uint8(LEVELS)
    assert pixels[[0, 255]].tolist() == [-1.0, 1.0]
    assert torch.equal(back(pixels), LEVELS)


def test_numbers_become_levels_without_touching_what_was_given() -> None:
    floats = torch.tensor([0.0, 51.0, 255.0])
    assert from_uint8(floats).tolist() == pytest.approx([-1.0, -0.6, 1.0])
    assert floats.tolist() == [0.0, 51.0, 255.0]


def test_samples_and_data_round_halves_differently() -> None:
    halves = torch.tensor([-1.0 + 0.5 / 127.5, 0.0, 9.0, -9.0], dtype=torch.float64)
    assert to_uint8(halves).tolist() == [1, 128, 255, 0]
    assert nearest_levels(halves).tolist() == [0.0, 128.0, 255.0, 0.0]


def test_a_png_has_the_same_bytes_for_the_same_pixels() -> None:
    image = torch.randint(256, (3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert png(to_pil(image)) == png(to_pil(image.clone()))
    assert np.array_equal(np.array(to_pil(image)), image.permute(1, 2, 0).numpy())
    assert to_pil(image[:1]).mode == "L"


def test_small_pictures_are_enlarged_to_the_asked_size() -> None:
    image = make_grid(torch.zeros(1, 3, 5, 7, dtype=torch.uint8), gap=0, min_cell=11).image
    assert image.size == (14, 10)
    with pytest.raises(ShapeError, match="pictures"):
        make_grid(torch.zeros(0, 3, 5, 7, dtype=torch.uint8))


def test_a_sheet_has_a_row_for_each_label_and_is_no_picture_of_a_data_set(tmp_path: Path) -> None:
    rows = [
        ("three", torch.full((3, 3, 4, 5), 10, dtype=torch.uint8)),
        ("one", torch.full((1, 3, 6, 5), 90, dtype=torch.uint8)),
    ]
    sheet = make_sheet(rows, min_cell=8)
    array = np.array(sheet.image)
    assert array.shape == ((8 + 2 + 14) + (6 + 2 + 14), 3 * (10 + 2), 3)
    assert (array[12 + 1 : 12 + 9, 1:11] == 10).all()
    assert (array[24 + 12 + 1 : 24 + 12 + 7, 1:6] == 90).all()
    assert (array[:12] < 100).any()  # the label is written
    assert is_overview(sheet.save(tmp_path / "concepts.png"))

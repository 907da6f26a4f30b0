"""Edge agreement: known pictures, tolerance, and whole-set counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genzoo.core.errors import DataError, ShapeError, UsageError
from genzoo.data.controls import canny_edges
from genzoo.data.picture_sets import ArrayPictures
from genzoo.evaluation.edges import control_adherence, edge_agreement


def square(side: int = 32, value: int = 255) -> torch.Tensor:
    """A bright square on black, (1, 3, side, side + 4) uint8."""
    image = torch.zeros(1, 3, side, side + 4, dtype=torch.uint8)
    image[..., 8:24, 10:26] = value
    return image


def test_agreement_within_the_tolerance() -> None:
    control = torch.zeros(1, 12, 14, dtype=torch.bool)
    control[0, 6] = True
    for shift, expected in ((0, 1.0), (2, 1.0), (3, 0.0)):
        found = torch.roll(control, shift, dims=1)
        assert edge_agreement(found, control, tolerance=2).f1 == expected


def test_precision_and_recall_are_not_swapped() -> None:
    control = torch.zeros(1, 12, 14, dtype=torch.bool)
    control[0, 2] = True
    found = control.clone()
    found[0, 9] = True
    result = edge_agreement(found, control, tolerance=1)
    assert (result.precision, result.recall) == (0.5, 1.0)
    assert result.f1 == pytest.approx(2 / 3)


def test_empty_maps_agree_and_one_empty_map_does_not() -> None:
    empty = torch.zeros(1, 5, 6, dtype=torch.bool)
    full = ~empty
    assert edge_agreement(empty, empty).f1 == 1.0
    assert edge_agreement(full, empty).f1 == 0.0
    with pytest.raises(ShapeError):
        edge_agreement(empty, empty[:, 1:])


def pictures(n: int = 3) -> np.ndarray:
    images = torch.cat([torch.roll(square(), shift, dims=-1) for shift in range(n)])
    return images.movedim(1, -1).numpy()


def maps(images: np.ndarray) -> np.ndarray:
    edges = np.stack([canny_edges(picture).numpy() for picture in torch.from_numpy(images).movedim(-1, 1)])
    return np.repeat(edges[..., None] * np.uint8(255), 3, axis=-1)


def test_pictures_made_from_their_maps_adhere_and_shuffled_ones_less() -> None:
    images = pictures()
    controls = maps(images)
    assert control_adherence(ArrayPictures(images), ArrayPictures(controls))["control_f1"] == 1.0
    blank = np.zeros_like(images)
    assert control_adherence(ArrayPictures(blank), ArrayPictures(controls))["control_recall"] == 0.0
    far = np.roll(controls, 6, axis=1)
    assert control_adherence(ArrayPictures(images), ArrayPictures(far))["control_f1"] < 0.6


def test_maps_must_fit_their_pictures() -> None:
    images = pictures()
    with pytest.raises(DataError, match="3 images but 2 control maps"):
        control_adherence(ArrayPictures(images), ArrayPictures(maps(images)[:2]))
    with pytest.raises(DataError, match="differ in size"):
        control_adherence(ArrayPictures(images), ArrayPictures(maps(images)[:, 1:]))
    with pytest.raises(UsageError, match="no edge extractor 'sobel'"):
        control_adherence(ArrayPictures(images), ArrayPictures(maps(images)), extractor="sobel")

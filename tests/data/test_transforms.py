"""The centre crop against an independent formula, the range, the flip."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hostile_images import photo
from PIL import Image

from genzoo.core.errors import DataError
from genzoo.data.transforms import adm_centre_crop, draw_flip, flip, to_tensor


def cubic(x: float, a: float = -0.5) -> float:
    x = abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def box(x: float) -> float:
    return float(-0.5 < x <= 0.5)


def weights(n_in: int, n_out: int, kernel: object, support: float) -> np.ndarray:
    """(n_out, n_in): antialiased resampling, written from its definition."""
    scale = n_in / n_out
    stretch = max(scale, 1.0)
    matrix = np.zeros((n_out, n_in))
    for i in range(n_out):
        centre = (i + 0.5) * scale
        low = max(0, math.floor(centre - support * stretch + 0.5))
        high = min(n_in, math.floor(centre + support * stretch + 0.5))
        row = [kernel((j + 0.5 - centre) / stretch) for j in range(low, high)]  # type: ignore[operator]
        matrix[i, low:high] = np.array(row) / sum(row)
    return matrix


def resample(
    array: np.ndarray, size: tuple[int, int], kernel: object, support: float, first: int
) -> np.ndarray:
    """Resample axis `first`, then the other, each pass rounded to 8 bits. size: (height, width)."""
    for axis in (first, 1 - first):
        matrix = weights(array.shape[axis], size[axis], kernel, support)
        array = np.moveaxis(np.tensordot(matrix, array, (1, axis)), 0, axis)
        array = np.floor(np.clip(array, 0, 255) + 0.5)
    return array


def crop_by_definition(array: np.ndarray, size: int, first: int) -> np.ndarray:
    array = array.astype(float)
    while min(array.shape[:2]) >= 2 * size:
        array = resample(array, (array.shape[0] // 2, array.shape[1] // 2), box, 0.5, first)
    scale = size / min(array.shape[:2])
    height, width = round(array.shape[0] * scale), round(array.shape[1] * scale)
    array = resample(array, (height, width), cubic, 2.0, first)
    top, left = (height - size) // 2, (width - size) // 2
    return array[top : top + size, left : left + size]


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(61, 40, 8), (40, 61, 8), (17, 33, 16), (9, 7, 12), (128, 64, 8), (8, 8, 8), (31, 77, 5)],
)
def test_centre_crop_agrees_with_its_definition(width: int, height: int, size: int) -> None:
    rng = np.random.default_rng(width * height)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    got = np.asarray(adm_centre_crop(Image.fromarray(noise), size), float)
    assert got.shape == (size, size, 3)
    # which axis Pillow resamples first depends on the shape; its fixed-point sums may tip a value half-way
    differences = [np.abs(got - crop_by_definition(noise, size, first)) for first in (0, 1)]
    assert min(difference.max() for difference in differences) <= 1
    assert min(difference.mean() for difference in differences) < 0.02


def test_the_crop_is_central() -> None:
    strip = Image.new("RGB", (30, 10), "black")
    strip.paste("white", (10, 0, 20, 10))
    assert np.asarray(adm_centre_crop(strip, 10)).min() > 250


def test_a_strip_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(DataError, match="too long"):
        adm_centre_crop(Image.new("L", (100_000, 1)), 256)


def test_pixels_lie_in_minus_one_to_one() -> None:
    pixels = to_tensor(Image.fromarray(np.array([[[0, 255, 51]]], np.uint8)))
    assert pixels.dtype == torch.float32
    assert torch.allclose(pixels.flatten(), torch.tensor([-1.0, 1.0, -0.6]))
    assert to_tensor(photo(7, 5)).shape == (3, 5, 7)
    assert to_tensor(photo(7, 5, "L")).shape == (1, 5, 7)


def test_flip_is_a_fair_coin_of_the_generator() -> None:
    generator = torch.Generator().manual_seed(0)
    heads = sum(draw_flip(generator) for _ in range(2000))
    assert 900 < heads < 1100
    assert flip(torch.tensor([[1, 2, 3]])).tolist() == [[3, 2, 1]]

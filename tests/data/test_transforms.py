"""The centre crop against an independent formula, the range, the flip."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hostile_images import photo
from PIL import Image

from genzoo.core.errors import DataError, ShapeError
from genzoo.core.sizes import sides
from genzoo.data.frame_transforms import TRANSFORMS
from genzoo.data.transforms import adm_centre_crop, draw_flip, flip, size_name, to_tensor


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


@pytest.mark.parametrize("size", [(32, 64), (64, 32), (7, 20)])
@pytest.mark.parametrize("shape", [(300, 100), (100, 300), (64, 32), (33, 70), (5, 9)])
def test_rectangles_are_covered_and_cut_from_the_centre(
    size: tuple[int, int], shape: tuple[int, int]
) -> None:
    ramp = np.linspace(0, 255, shape[0], dtype=np.float32)[None].repeat(shape[1], 0)
    cut = np.asarray(adm_centre_crop(Image.fromarray(ramp.astype(np.uint8)), size), float)
    assert cut.shape == size
    # the middle of a ramp stays in the middle, and as much of it is left as the shape has room for
    assert abs(cut.mean() - 127.5) < 6
    kept = size[1] / (shape[0] * max(size[1] / shape[0], size[0] / shape[1]))
    assert cut[:, -1].mean() - cut[:, 0].mean() == pytest.approx(255 * kept, abs=40)


@pytest.mark.parametrize("transform", sorted(TRANSFORMS))
@pytest.mark.parametrize("size", [32, (32, 32), [32, 32]])
def test_a_square_is_a_rectangle_of_equal_sides(transform: str, size: Any) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    cut = TRANSFORMS[transform]
    assert torch.equal(cut(Image.fromarray(noise), size), cut(Image.fromarray(noise), 32))


def test_frames_are_cut_to_rectangles_by_the_same_rules() -> None:
    ramp = np.linspace(0, 255, 90, dtype=np.uint8)[None, :, None].repeat(40, 0).repeat(3, 2)
    frame = Image.fromarray(ramp)
    for name in ("short_side_crop", "square_resize", "adm"):
        assert TRANSFORMS[name](frame, (20, 40)).shape == (3, 20, 40)
        assert abs(float(TRANSFORMS[name](frame, (20, 40)).mean())) < 0.05
    assert TRANSFORMS["exact"](frame, (40, 90)).shape == (3, 40, 90)
    with pytest.raises(DataError, match="90 x 40 pixels, not 40 x 90"):
        TRANSFORMS["exact"](frame, (90, 40))


@pytest.mark.parametrize("name", ["short_side_crop", "square_resize", "adm"])
def test_frames_keep_as_much_as_their_shape_has_room_for(name: str) -> None:
    ramp = np.linspace(0, 255, 90, dtype=np.uint8)[:, None, None].repeat(40, 1).repeat(3, 2)
    for picture, kept in ((ramp, 20 / 90), (ramp.transpose(1, 0, 2), 80 / 90)):
        cut = TRANSFORMS[name](Image.fromarray(picture), (20, 40))
        assert float(cut.max() - cut.min()) == pytest.approx(2 * kept, abs=0.12)


@pytest.mark.parametrize("size", [0, (3,), (3, 0), (1, 2, 3)])
def test_what_is_no_size_is_refused(size: Any) -> None:
    with pytest.raises(ShapeError, match="height and width"):
        sides(size)


def test_sizes_are_named_as_they_always_were() -> None:
    assert [size_name(size) for size in (32, (32, 32), [32, 64])] == ["32", "32", "32x64"]

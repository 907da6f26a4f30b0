"""Canny edges: equal to OpenCV's on a recorded picture, and errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genzoo.core.controls import build_control
from genzoo.core.errors import ShapeError, UsageError
from genzoo.data.controls import canny

# cv2.Canny(picture(), low, high) of OpenCV 5.0, one hexadecimal number a row
RECORDED = {
    (100, 200): "0760ec 3c4789 20400b 40f40a 418b01 430981 e21881 929481 544a41 428841 430c61 622449 1254ca "
    "235588 451d18 4c0030 400000 800000 800000 800001",
    (150, 400): "006000 004000 004000 00f400 018b00 030980 021881 021481 044841 028841 030c61 022441 0254c0 "
    "035580 011d00 000000 000000 000000 000000 000001",
}


def picture() -> Tensor:
    """A disc on slopes, different in each channel: (3, 20, 24) uint8."""
    rows, columns = torch.arange(20)[:, None], torch.arange(24)[None]
    disc = ((rows - 9) ** 2 + (columns - 11) ** 2 < 36) * 120
    slopes = ((3, 5, 7), (7, 2, 5), (1, 9, 11))
    return torch.stack(
        [(rows * a + columns * b + rows * columns % m * 4 + disc) % 256 for a, b, m in slopes]
    ).byte()


@pytest.mark.parametrize("thresholds", RECORDED)
def test_edges_equal_those_of_opencv(thresholds: tuple[int, int]) -> None:
    pixels = picture()[None].float() / 127.5 - 1
    edges = canny(pixels, low=thresholds[0], high=thresholds[1])
    assert edges.shape == pixels.shape
    assert set(edges.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(edges[:, 0], edges[:, 2])
    rows = ["".join(str(int(value > 0)) for value in row) for row in edges[0, 0]]
    assert " ".join(f"{int(row, 2):06x}" for row in rows) == RECORDED[thresholds]


def test_pictures_of_a_batch_do_not_meet() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 3, 16, 12, generator=generator) * 2 - 1
    assert torch.equal(canny(pixels), torch.cat([canny(one[None]) for one in pixels]))


def test_a_flat_picture_has_no_edges() -> None:
    assert (canny(torch.full((1, 3, 6, 5), 0.3)) == -1).all()


def test_extractors_are_found_by_name_and_know_their_settings() -> None:
    pixels = picture()[None].float() / 127.5 - 1
    plain, strict = build_control("canny"), build_control({"name": "canny", "low": 150, "high": 400})
    assert torch.equal(plain(pixels), canny(pixels))
    assert torch.equal(strict(pixels), canny(pixels, low=150, high=400))
    assert plain.fingerprint == build_control({"name": "canny", "high": 200}).fingerprint
    assert plain.fingerprint != strict.fingerprint
    with pytest.raises(UsageError, match="did you mean 'canny'"):
        build_control("cany")
    with pytest.raises(UsageError, match="does not take these settings"):
        build_control({"name": "canny", "sigma": 3})


def test_unfit_input_is_refused() -> None:
    with pytest.raises(ShapeError, match="is expected"):
        canny(torch.zeros(1, 1, 8, 8))
    with pytest.raises(UsageError, match="thresholds"):
        canny(torch.zeros(1, 3, 8, 8), low=300, high=200)

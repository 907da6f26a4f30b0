"""Canny edges: equal to OpenCV's on a recorded picture, and errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from genzoo.core.controls import build_control
from genzoo.core.errors import ShapeError, UsageError
from genzoo.data import controls
from genzoo.data.controls import canny, canny_edges

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


def test_edges_are_found_picture_by_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    found = canny_edges
    monkeypatch.setattr(
        controls, "canny_edges", lambda x, **how: seen.append(tuple(x.shape)) or found(x, **how)
    )
    canny(torch.zeros(5, 3, 8, 9))
    assert seen == [(3, 8, 9)] * 5  # so memory does not grow with the batch


@pytest.fixture
def fresh_opencv() -> Iterator[None]:
    controls._opencv.cache_clear()
    yield
    controls._opencv.cache_clear()


class OpenCV(ModuleType):
    """A package cv2 whose edges are ours, but for what `spoil` does to them."""

    def __init__(self, spoil: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__("cv2")
        self.spoil, self.calls = spoil, 0

    def Canny(self, picture: np.ndarray, low: int, high: int) -> np.ndarray:
        self.calls += 1
        levels = torch.from_numpy(picture).movedim(-1, 0)
        return self.spoil(controls._edges(levels, low, high).numpy().astype(np.uint8) * 255)


@pytest.mark.usefixtures("fresh_opencv")
@pytest.mark.parametrize(("spoil", "calls"), [(lambda x: x, 2), (lambda x: x[::-1].copy(), 1)])
def test_opencv_serves_where_it_agrees(
    spoil: Callable[[np.ndarray], np.ndarray], calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", package := OpenCV(spoil))
    assert torch.equal(canny_edges(picture()), controls._edges(picture(), 100, 200))
    assert package.calls == calls


def test_edges_are_drawn_one_pixel_wide() -> None:
    square = torch.zeros(3, 32, 36, dtype=torch.uint8)
    square[:, 8:24, 10:26] = 255
    edges = canny_edges(square)
    ys, xs = edges.nonzero().T
    bounds = [ys.min(), ys.max(), xs.min(), xs.max()]
    assert all(abs(int(got) - want) <= 1 for got, want in zip(bounds, [8, 23, 10, 25], strict=True))
    assert edges[12:20].sum(1).tolist() == [2] * 8  # each row meets the left and the right side once
    square[square > 0] = 12
    assert not canny_edges(square).any()


def test_a_weak_edge_stays_where_it_touches_a_strong_one() -> None:
    weak = torch.zeros(3, 40, 400, dtype=torch.uint8)
    weak[:, 20:] = 40  # a step of 160, between the thresholds
    assert not canny_edges(weak).any()
    weak[:, 20:, :2] = 60
    assert canny_edges(weak).any(0).sum() > 390  # along its whole length, step by step


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
    with pytest.raises(UsageError, match="canny has no argument 'sigma'; it has high, low"):
        build_control({"name": "canny", "sigma": 3})


def test_unfit_input_is_refused() -> None:
    with pytest.raises(ShapeError, match="is expected"):
        canny(torch.zeros(1, 1, 8, 8))
    with pytest.raises(UsageError, match="thresholds"):
        canny(torch.zeros(1, 3, 8, 8), low=300, high=200)

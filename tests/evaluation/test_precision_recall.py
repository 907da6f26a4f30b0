"""Precision and recall: known answers, block independence, bounded memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genzoo.core.errors import DataError, NonFiniteError, ShapeError
from genzoo.evaluation.measures import distances as distances_module
from genzoo.evaluation.measures.distances import (
    Points,
    centred,
    nearest_others,
    squared_distances,
    squared_radii,
)
from genzoo.evaluation.measures.precision_recall import precision_recall


def draw(n: int, d: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_identical_sets_have_precision_and_recall_one(dtype: torch.dtype, offset: float) -> None:
    x = (draw(150) + offset).to(dtype)
    assert precision_recall(x, x.clone()) == (1.0, 1.0)


def test_far_sets_have_none() -> None:
    assert precision_recall(draw(60), draw(50, seed=1) + 100) == (0.0, 0.0)


def test_a_repeated_image_is_precise_and_recalls_nothing() -> None:
    real = draw(100)
    generated = real[:1].repeat(40, 1)
    result = precision_recall(generated, real)
    assert result.precision == 1.0
    assert result.recall == pytest.approx(1 / 100)  # balls of radius 0 around one real image


def test_constant_sets_are_inside_their_balls_of_radius_zero() -> None:
    constant = torch.full((9, 4), 0.3, dtype=torch.float32)
    assert precision_recall(constant, constant.clone()) == (1.0, 1.0)


@given(rows=st.integers(1, 90), columns=st.integers(1, 90))
@settings(max_examples=20, deadline=None)
def test_block_sizes_do_not_change_the_result(rows: int, columns: int) -> None:
    x, y = draw(70), draw(80, seed=1) * 1.2
    whole = precision_recall(x, y, k=4)
    assert precision_recall(x, y, k=4, rows=rows, columns=columns) == whole


def test_every_pair_of_one_set_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    points, seen = centred(draw(70), draw(70))[0], []

    def counted(part: Points, others: Points) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(part) * len(others))
        return squared_distances(part, others)

    monkeypatch.setattr(distances_module, "squared_distances", counted)
    distances, where = nearest_others(points, 9, rows=10, columns=30)
    assert sum(seen) == 70 * 71 // 2 + 7 * 45  # the blocks on the diagonal are whole
    exact = torch.cdist(points.given, points.given).square().fill_diagonal_(torch.inf).sort(1)
    assert torch.allclose(distances, exact.values[:, :9])
    assert torch.equal(where, exact.indices[:, :9])


def test_radii_reach_to_the_kth_other_point() -> None:
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0], [20.0]])
    assert squared_radii(points, k=2).tolist() == [9.0, 4.0, 9.0, 36.0, 289.0]


def test_agrees_with_torch_fidelity_on_the_same_features() -> None:
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    x, y = draw(140), draw(120, seed=1) * 0.8
    precision, recall = calculate_precision_recall_full(x, y)
    assert precision_recall(x, y) == pytest.approx((precision, recall), abs=1e-7)


def test_blocks_are_no_larger_than_asked() -> None:
    few, many = centred(draw(5), draw(33))
    shapes = [squared_distances(few, part)[0].shape for _, part in many.parts(10)]
    assert [tuple(shape) for shape in shapes] == [(5, 10), (5, 10), (5, 10), (5, 3)]


def test_more_noise_lowers_precision() -> None:
    real = draw(300)
    levels = [
        precision_recall(draw(200, seed=1) + noise * draw(200, seed=2), real).precision for noise in (0, 1, 4)
    ]
    assert levels[0] > levels[1] > levels[2]


def test_bad_features_are_refused() -> None:
    with pytest.raises(DataError, match="3 neighbours need more than 3 images, got 3"):
        precision_recall(draw(3), draw(10))
    with pytest.raises(ShapeError):
        precision_recall(draw(9), draw(9, d=5))
    with pytest.raises(NonFiniteError, match="image 0 "):
        precision_recall(draw(9) * torch.nan, draw(9))

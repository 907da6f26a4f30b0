"""Nearest neighbours and copies."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genzoo.core.errors import DataError, ShapeError
from genzoo.evaluation.memorisation import memorisation, nearest


def draw(n: int, d: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@given(block=st.integers(1, 40), k=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_blocks_find_the_same_neighbours(block: int, k: int) -> None:
    queries, reference = draw(17), draw(31, seed=1)
    distances = torch.cdist(queries, reference, compute_mode="donot_use_mm_for_euclid_dist")
    expected = distances.topk(k, largest=False)
    found = nearest(queries, reference, k=k, block=block)
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.distances, expected.values)


def test_copies_are_found_and_fresh_draws_are_not_blamed() -> None:
    real = draw(400)
    assert memorisation(real[:50] + 1e-4, real) == pytest.approx(
        {"nearest_ratio": 0.0, "copies": 1.0, "exact_copies": 0.0}, abs=1e-3
    )
    fresh = memorisation(draw(200, seed=1), real)
    assert fresh["nearest_ratio"] == pytest.approx(1.0, abs=0.1)
    assert fresh["copies"] < 0.05
    assert memorisation(real[:20], real)["exact_copies"] == 1.0


def test_the_share_of_copies_is_the_share_that_was_copied() -> None:
    real = draw(300)
    half = torch.cat([real[:30], draw(30, seed=9) + 5])
    assert memorisation(half, real)["copies"] == pytest.approx(0.5)


def test_bad_sets_are_refused() -> None:
    with pytest.raises(ShapeError):
        nearest(draw(3), draw(3, d=4))
    with pytest.raises(DataError, match="need as many"):
        nearest(draw(3), draw(2), k=3)
    with pytest.raises(DataError, match="exact twin"):
        memorisation(draw(3), torch.ones(6, 6))

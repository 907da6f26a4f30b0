"""Streaming statistics equal the two-pass ones, however the rows arrive."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genzoo.core.errors import DataError, NonFiniteError, ShapeError
from genzoo.evaluation.statistics import FeatureStatistics, merge_all


def rows(n: int, d: int = 5, seed: int = 0, offset: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + offset


def collect(features: torch.Tensor, batch: int = 7) -> FeatureStatistics:
    statistics = FeatureStatistics()
    for part in features.split(batch):
        statistics.update(part)
    return statistics


@pytest.mark.parametrize("ddof", [0, 1])
def test_equals_numpy(ddof: int) -> None:
    features = rows(2500)
    result = collect(features, 97).gaussian(ddof=ddof)
    np.testing.assert_allclose(result.mean, features.numpy().mean(0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        result.covariance, np.cov(features.numpy().T, ddof=ddof), rtol=1e-12, atol=1e-14
    )
    assert (result.count, result.ddof) == (2500, ddof)


@given(batch=st.integers(1, 1500))
@settings(max_examples=12, deadline=None)
def test_result_does_not_depend_on_the_batching(batch: int) -> None:
    features = rows(2300, d=3)
    one, other = collect(features, 2300).gaussian(), collect(features, batch).gaussian()
    assert torch.equal(one.covariance, other.covariance)
    assert torch.equal(one.mean, other.mean)


@given(cut=st.integers(0, 300), second=st.integers(0, 300))
@settings(max_examples=12, deadline=None)
def test_merging_parts_equals_the_whole(cut: int, second: int) -> None:
    features = rows(300, d=4, offset=30.0)
    bounds = sorted((cut, second))
    parts = [features[: bounds[0]], features[bounds[0] : bounds[1]], features[bounds[1] :]]
    merged = merge_all([collect(part) for part in parts]).gaussian()
    whole = collect(features).gaussian()
    assert merged.count == 300
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=1e-9, atol=1e-11)


def test_a_large_offset_does_not_cancel() -> None:
    far = collect(rows(1500, offset=1e7)).gaussian().covariance
    near = np.cov((rows(1500, offset=1e7) - 1e7).numpy().T)
    np.testing.assert_allclose(far, near, rtol=1e-7, atol=1e-8)


def test_rows_may_follow_after_a_result_was_read() -> None:
    statistics = collect(rows(50))
    statistics.gaussian()
    statistics.update(rows(20, seed=1))
    expected = collect(torch.cat([rows(50), rows(20, seed=1)])).gaussian()
    torch.testing.assert_close(statistics.gaussian().covariance, expected.covariance, rtol=1e-12, atol=1e-13)


def test_nan_features_name_the_image() -> None:
    statistics = collect(rows(10))
    bad = rows(4)
    bad[2, 1] = torch.nan
    with pytest.raises(NonFiniteError, match="image 12 "):
        statistics.update(bad)


def test_too_few_images_and_mixed_widths_are_errors() -> None:
    with pytest.raises(DataError, match="at least 2 pictures, 1 was given"):
        collect(rows(1)).gaussian()
    with pytest.raises(ShapeError, match="3 dimensions, the ones before had 5"):
        collect(rows(4)).update(rows(4, d=3))

"""Known answers, invariants and peers of the Fréchet distance."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genzoo.core.errors import NonFiniteError, ShapeError, UsageError
from genzoo.evaluation.measures.frechet import distance_between, frechet_distance
from genzoo.evaluation.statistics import FeatureStatistics, Gaussian


def features(n: int, d: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix * scale


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.mean(0), torch.cov(x.T)


def distance(x: torch.Tensor, y: torch.Tensor) -> float:
    return frechet_distance(*moments(x), *moments(y))


def test_a_set_is_at_distance_zero_from_itself() -> None:
    x = features(400, 20, 0)
    assert distance(x, x) == pytest.approx(0, abs=1e-11 * float(moments(x)[1].trace()))


@given(shift=st.lists(st.floats(-50, 50), min_size=3, max_size=3), a=st.floats(0.1, 9), b=st.floats(0.1, 9))
@settings(max_examples=25, deadline=None)
def test_closed_form_of_commuting_gaussians(shift: list[float], a: float, b: float) -> None:
    # diagonal covariances commute: |shift|^2 + sum (sqrt(s1) - sqrt(s2))^2
    spread = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    mean = torch.tensor(shift, dtype=torch.float64)
    got = frechet_distance(
        torch.zeros(3, dtype=torch.float64), (a * spread).diag(), mean, (b * spread).diag()
    )
    expected = mean.square().sum() + ((a * spread).sqrt() - (b * spread).sqrt()).square().sum()
    assert got == pytest.approx(float(expected), rel=1e-10, abs=1e-10)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_symmetric_and_unmoved_by_rotation(seed: int) -> None:
    x, y = features(90, 6, seed), features(70, 6, seed + 1)
    rotation = torch.linalg.qr(features(6, 6, seed + 2)).Q
    assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-9)
    assert distance(x @ rotation, y @ rotation) == pytest.approx(distance(x, y), rel=1e-9)


@pytest.mark.parametrize("count", [300, 9])
def test_agrees_with_torch_fidelity_on_the_same_features(count: int) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    x, y = features(count, 16, 3), features(count + 5, 16, 4)
    theirs = fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), False)
    # with fewer images than dimensions their complex eigenvalues are only good to the square root of rounding
    tolerance = 1e-9 if count > 16 else 1e-6
    assert distance(x, y) == pytest.approx(theirs["frechet_inception_distance"], rel=tolerance)


def test_agrees_with_the_matrix_square_root() -> None:
    from scipy.linalg import sqrtm

    (mu_1, s_1), (mu_2, s_2) = moments(features(500, 24, 5)), moments(features(500, 24, 6))
    root = sqrtm((s_1 @ s_2).numpy()).real.trace()
    expected = float((mu_1 - mu_2).square().sum() + s_1.trace() + s_2.trace()) - 2 * root
    assert frechet_distance(mu_1, s_1, mu_2, s_2) == pytest.approx(expected, rel=1e-9)


def test_rank_deficient_covariances_keep_their_accuracy() -> None:
    # both sets in one 3-dimensional subspace of 8: the distance is that of the subspace
    basis = torch.linalg.qr(features(8, 8, 1)).Q[:, :3]
    x, y = features(50, 3, 2), features(60, 3, 3)
    assert distance(x @ basis.T, y @ basis.T) == pytest.approx(distance(x, y), rel=1e-7)


def test_constant_images_are_at_the_squared_distance_of_their_means() -> None:
    constant = torch.full((30, 4), 2.0, dtype=torch.float64)
    other = torch.full((20, 4), -1.0, dtype=torch.float64)
    assert distance(constant, other) == pytest.approx(36.0)


def test_bad_statistics_are_refused() -> None:
    mu, sigma = moments(features(40, 4, 0))
    with pytest.raises(ShapeError, match="do not fit"):
        frechet_distance(mu, sigma, mu[:3], sigma[:3, :3])
    with pytest.raises(NonFiniteError):
        frechet_distance(mu * torch.nan, sigma, mu, sigma)
    with pytest.raises(UsageError, match="divides by n - 1, the other by n - 0"):
        distance_between(Gaussian(mu, sigma, 40, 1), Gaussian(mu, sigma, 40, 0))


def test_more_noise_is_further_away() -> None:
    x = features(600, 8, 0)
    noise = features(600, 8, 1)
    distances = [distance(x, x + level * noise) for level in (0.0, 0.2, 0.5, 1.0)]
    assert distances == sorted(distances)
    assert distances[-1] > 100 * abs(distances[0]) + 0.1


def test_streamed_statistics_give_the_same_distance() -> None:
    x, y = features(1300, 12, 0), features(1200, 12, 1)
    gaussians = []
    for rows in (x, y):
        statistics = FeatureStatistics()
        for part in rows.float().split(111):
            statistics.update(part)
        gaussians.append(statistics.gaussian())
    assert distance_between(*gaussians) == pytest.approx(distance(x, y), rel=1e-5)

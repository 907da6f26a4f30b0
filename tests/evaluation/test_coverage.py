"""How often intervals hold what they promise, simulated: the one claim that an interval makes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genzoo.evaluation.intervals.difference import difference, holm
from genzoo.evaluation.intervals.estimate import Estimate, Uncertainty, of_mean, of_share, t_of
from genzoo.evaluation.intervals.frechet import frechet_influence
from genzoo.evaluation.intervals.groups import frechet_jackknife
from genzoo.evaluation.intervals.halves import half_samples, mind_of_halves, of_halves
from genzoo.evaluation.measures.frechet import frechet_distance
from genzoo.evaluation.measures.mind import mind
from genzoo.evaluation.measures.mmd import cubic, kernel_sums
from genzoo.evaluation.measures.neighbourhoods import neighbourhoods
from genzoo.evaluation.statistics import FeatureStatistics, Gaussian

LEVEL, N, D, REPEATS = 0.95, 1000, 16, 120
REFERENCE = Gaussian(torch.zeros(D, dtype=torch.float64), 1.3 * torch.eye(D, dtype=torch.float64))
# of the true model: a Gaussian of unit covariance and mean 0.1 along every axis
TRUTH = D * (0.1**2 + (1.3**0.5 - 1) ** 2)


def draw(count: int, seed: int, d: int = D) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return 0.1 + torch.randn(count, d, generator=random, dtype=torch.float64)


def moments(rows: Tensor) -> Gaussian:
    statistics = FeatureStatistics()
    statistics.update(rows)
    return statistics.gaussian()


def held(estimates: list[Estimate], truth: float) -> float:
    return sum(one.low <= truth <= one.high for one in estimates) / len(estimates)


def mean_of(estimates: list[Estimate]) -> float:
    """What the measure is at this n, as far as so many repetitions tell."""
    return sum(one.value for one in estimates) / len(estimates)


def test_intervals_of_a_frechet_distance_hold_and_the_percentile_bootstrap_does_not() -> None:
    at_n, infinite, naive = [], [], []
    for seed in range(REPEATS):
        rows = draw(N, seed)
        found = frechet_influence(rows, moments(rows), REFERENCE)
        at_n.append(found.interval(LEVEL))
        if seed < REPEATS // 2:
            infinite.append(frechet_jackknife(rows, REFERENCE, seed=seed).at_infinity(LEVEL))
            naive.append(percentiles(rows, found.value, seed))
    assert 0.90 <= held(at_n, mean_of(at_n)) <= 0.99
    assert 0.88 <= held(infinite, TRUTH) <= 1
    assert held(naive, TRUTH) < 0.3  # at 95 %
    assert held(naive, mean_of(at_n)) < 0.85


def percentiles(rows: Tensor, value: float, seed: int) -> Estimate:
    random = torch.Generator().manual_seed(1000 + seed)
    drawn = [rows[torch.randint(len(rows), (len(rows),), generator=random)] for _ in range(60)]
    values = torch.tensor([distance(again) for again in drawn], dtype=torch.float64)
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(value, None, low, high)


def distance(rows: Tensor) -> float:
    own = moments(rows)
    return frechet_distance(own.mean, own.covariance, REFERENCE.mean, REFERENCE.covariance)


def intervals_of_balls(x: Tensor, y: Tensor, how: Uncertainty) -> dict[str, Estimate]:
    found = neighbourhoods(x, y, halves=half_samples(len(x), how.halves, how.seed))
    recall, coverage = found.halves
    return {
        "precision": of_share(found.inside, LEVEL),
        "density": of_mean(found.density, found.counts / found.k, "mean", LEVEL),
        "recall": of_halves(found.recall, recall, len(x), how),
        "coverage": of_halves(found.coverage, coverage, len(x), how),
    }


def test_intervals_of_balls_kernels_and_slices_hold() -> None:
    n, d = 160, 6
    reference = draw(n, 10_000, d)
    found: dict[str, list[Estimate]] = {}
    for seed in range(60):
        rows, how = 0.9 * draw(n, seed, d), Uncertainty(halves=30, seed=seed)
        each = intervals_of_balls(rows, reference, how)
        sums = kernel_sums(rows, reference, cubic)
        each["kid"] = of_mean(sums.unbiased(), 2 * sums.terms()[0], "U-statistic", LEVEL)
        halves = half_samples(n, how.halves, seed)
        slices = mind_of_halves(rows, reference, halves, directions=60, seed=0)
        each["mind"] = of_halves(mind(rows, reference, directions=60, seed=0), slices, n, how)
        for name, estimate in each.items():
            found.setdefault(name, []).append(estimate)
    for name, estimates in found.items():
        assert 0.85 <= held(estimates, mean_of(estimates)) <= 1, name


def test_half_samples_are_the_measure_of_each_half() -> None:
    x, y = draw(61, 0, 5), draw(50, 1, 5)
    halves = half_samples(61, 4, 7)
    assert halves.sum(1).tolist() == [30] * 4
    recall, coverage = neighbourhoods(x, y, k=3, halves=halves, rows=17, columns=23).halves
    for number, half in enumerate(halves):
        alone = neighbourhoods(x[half], y, k=3)
        assert (float(recall[number]), float(coverage[number])) == (alone.recall, alone.coverage)


def test_the_jackknife_is_nearer_to_infinity_than_the_value_itself() -> None:
    rows = [draw(400, seed) for seed in range(12)]
    found = [frechet_jackknife(part, REFERENCE, groups=10, seed=0) for part in rows]
    plain = sum(one.value for one in found) / len(found)
    better = sum(one.value - one.bias for one in found) / len(found)
    assert abs(better - TRUTH) < 0.3 * abs(plain - TRUTH)


def test_a_difference_is_that_of_pairs_and_many_are_corrected_for() -> None:
    terms = draw(300, 0, 1).flatten()
    shift = 0.02 + 0.01 * draw(300, 1, 1).flatten()
    make: Callable[[Tensor], Estimate] = lambda rows: of_mean(float(rows.mean()), rows, "mean", LEVEL)  # noqa: E731
    first, second = make(terms), make(terms + shift)
    paired, apart = (difference(first, second, paired=flag) for flag in (True, False))
    assert paired.paired
    assert paired.differs
    assert not apart.differs
    assert paired.value == pytest.approx(apart.value)
    assert difference(first, Estimate(1.0), paired=True) is None
    assert holm({"a": 0.02, "b": 0.03, "c": 0.2}) == {"a": False, "b": False, "c": False}
    assert holm({"a": 0.01, "b": 0.02, "c": 0.2}) == {"a": True, "b": True, "c": False}


@pytest.mark.parametrize(("freedom", "quantile"), [(19, 2.0930240544), (49, 2.0095752371)])
def test_quantiles_of_students_t(freedom: int, quantile: float) -> None:
    assert t_of(0.95, freedom) == pytest.approx(quantile, rel=1e-6)

"""Intervals against closed forms, brute force and recorded resamples, all independent float64 arithmetic."""

from __future__ import annotations

import pytest
import torch
from golden.manifest import golden_cases, golden_root, golden_tensors
from torch import Tensor

from genzoo.evaluation.intervals.difference import difference
from genzoo.evaluation.intervals.estimate import Estimate, wilson
from genzoo.evaluation.intervals.frechet import FrechetInfluence, frechet_influence
from genzoo.evaluation.intervals.groups import frechet_jackknife
from genzoo.evaluation.measures.frechet import frechet_distance
from genzoo.evaluation.measures.mmd import cubic, kernel_sums
from genzoo.evaluation.statistics import FeatureStatistics, Gaussian

SET, LEVEL = "evaluation", 0.95
if not (golden_root() / SET / "manifest.json").is_file():
    pytest.skip("this folder of golden sets has no intervals", allow_module_level=True)
CASES = {case["name"]: case for case in golden_cases(SET, "intervals")}


def influence(rows: Tensor, reference: Gaussian) -> FrechetInfluence:
    statistics = FeatureStatistics()
    statistics.update(rows)
    return frechet_influence(rows, statistics.gaussian(), reference)


def distance(rows: Tensor, reference: Gaussian) -> float:
    statistics = FeatureStatistics()
    statistics.update(rows)
    own = statistics.gaussian()
    return frechet_distance(own.mean, own.covariance, reference.mean, reference.covariance)


def interval(estimate: Estimate) -> list[float]:
    return [estimate.low, estimate.high]


@pytest.mark.parametrize("name", [name for name in CASES if name == "frechet"])
def test_frechet_intervals(name: str) -> None:
    tensors, case = golden_tensors(SET, "intervals", name), CASES[name]
    expected, rows = case["second_computation"], tensors["rows"]
    reference = Gaussian(tensors["mean_ref"], tensors["cov_ref"])
    found = influence(rows, reference)
    assert found.value == pytest.approx(expected["fd"], rel=1e-10)
    assert found.value == pytest.approx(case["results"]["fd_dgm_eval"], rel=1e-10)
    torch.testing.assert_close(found.influence, tensors["influence"], rtol=1e-8, atol=1e-9)
    assert found.standard_error == pytest.approx(expected["standard_error_influence"], rel=1e-8)
    assert found.bias == pytest.approx(expected["bias_second_order"], rel=1e-8)
    assert interval(found.interval(LEVEL)) == pytest.approx(expected["interval_fd_n"], rel=1e-8)
    less = [end - found.bias for end in interval(found.interval(LEVEL))]
    assert less == pytest.approx(expected["interval_fd_infinity"], rel=1e-8)
    groups = frechet_jackknife(rows, reference, groups=50, seed=None)
    assert groups.bias == pytest.approx(expected["bias_group_jackknife_50"], rel=1e-6)
    assert groups.standard_error == pytest.approx(expected["standard_error_group_jackknife_50"], rel=1e-6)


@pytest.mark.parametrize("name", [name for name in CASES if name == "frechet"])
def test_frechet_resamples(name: str) -> None:
    tensors, expected = golden_tensors(SET, "intervals", name), CASES[name]["second_computation"]
    rows, reference = tensors["rows"], Gaussian(tensors["mean_ref"], tensors["cov_ref"])
    found = influence(rows, reference)
    for key, index in (("half_sample_values", "half_samples"), ("bootstrap_values", "bootstraps")):
        values = [distance(rows[drawn.long()], reference) for drawn in tensors[index]]
        assert values == pytest.approx(expected[key], rel=1e-10)
    linear = [found.value + float(found.influence[drawn.long()].mean()) for drawn in tensors["bootstraps"]]
    assert linear == pytest.approx(expected["bootstrap_linearised"], rel=1e-8)
    # one row left out at a time, by brute force: the influence is its derivative, up to n - 1
    n = len(rows)
    left_out = tensors["jackknife"]
    mean = left_out.mean()
    error = float(((n - 1) / n * (left_out - mean).square().sum()).sqrt())
    assert error == pytest.approx(expected["standard_error_jackknife"], rel=1e-6)
    assert found.standard_error == pytest.approx(error, rel=0.05)
    assert float((n - 1) * (mean - found.value)) == pytest.approx(expected["bias_jackknife"], rel=1e-6)
    assert found.bias == pytest.approx(expected["bias_jackknife"], rel=0.03)


@pytest.mark.parametrize("name", [name for name in CASES if name == "kernel"])
def test_kernel_intervals(name: str) -> None:
    tensors, expected = golden_tensors(SET, "intervals", name), CASES[name]["second_computation"]
    sums = kernel_sums(tensors["generated"], tensors["real"], cubic, block=77)
    ours, theirs = sums.terms()
    assert sums.unbiased() == pytest.approx(expected["value"], rel=1e-8)
    torch.testing.assert_close(ours, tensors["h_generated"], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(theirs, tensors["h_real"], rtol=1e-8, atol=1e-12)
    error = 2 * float((ours.var() / len(ours) + theirs.var() / len(theirs)).sqrt())
    fixed = 2 * float(ours.std() / len(ours) ** 0.5)
    assert expected["standard_error_first_order"] == pytest.approx(error, rel=1e-8)
    assert error == pytest.approx(expected["standard_error_jackknife"], rel=0.02)
    assert fixed < error  # with the reference held fixed
    # resampled rows: pairs of a row with itself are no pairs, and count as such where rows are repeated
    x, y, weights = tensors["generated"].double(), tensors["real"].double(), tensors["weights"]
    pairs = torch.outer(weights, weights) - weights.square().diag()
    within = (pairs * cubic(x, x)).sum() / pairs.sum()
    cross = (weights @ cubic(x, y)).sum() / (weights.sum() * len(y))
    real = sums.within_y.sum() / (len(y) * (len(y) - 1))
    assert float(within + real - 2 * cross) == pytest.approx(expected["weighted_value"], rel=1e-8)
    repeated = tensors["generated"].repeat_interleave(weights.long(), dim=0)
    naive = kernel_sums(repeated, tensors["real"], cubic).unbiased()
    assert naive == pytest.approx(expected["naive_resampled_value"], rel=1e-8)
    assert naive > expected["weighted_value"]


@pytest.mark.parametrize("name", [name for name in CASES if name == "paired"])
def test_paired_differences(name: str) -> None:
    tensors, expected = golden_tensors(SET, "intervals", name), CASES[name]["second_computation"]
    d = tensors["a"].shape[1]
    reference = Gaussian(torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64))
    a, b = (influence(tensors[key], reference) for key in ("a", "b"))
    assert (a.value, b.value) == pytest.approx((expected["fd_a"], expected["fd_b"]), rel=1e-8)
    first, second = a.interval(LEVEL), b.interval(LEVEL)
    assert first.standard_error == pytest.approx(expected["standard_error_a"], rel=1e-8)
    assert second.standard_error == pytest.approx(expected["standard_error_b"], rel=1e-8)
    paired, apart = (difference(first, second, paired=flag) for flag in (True, False))
    assert paired.value == pytest.approx(expected["difference"], rel=1e-8)
    assert paired.standard_error == pytest.approx(expected["standard_error_paired"], rel=1e-8)
    assert apart.standard_error == pytest.approx(expected["standard_error_unpaired"], rel=1e-8)
    less = b.value - b.bias - (a.value - a.bias)
    assert less == pytest.approx(expected["difference_bias_removed"], rel=1e-8)
    assert paired.differs
    assert not apart.differs


@pytest.mark.parametrize("name", [name for name in CASES if name == "wilson"])
def test_shares(name: str) -> None:
    for key, expected in CASES[name]["second_computation"].items():
        count, _, total = key.partition("_of_")
        assert list(wilson(int(count), int(total))) == pytest.approx(expected, abs=1e-12)

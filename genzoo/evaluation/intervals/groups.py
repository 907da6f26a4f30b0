"""The jackknife over groups: the least biased estimate of a Fréchet distance at infinitely many samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch

from genzoo.core.errors import DataError
from genzoo.evaluation.intervals.estimate import Estimate, t_of
from genzoo.evaluation.measures.frechet import frechet_distance
from genzoo.evaluation.statistics import FeatureStatistics, Gaussian

if TYPE_CHECKING:
    from torch import Tensor

GROUPS = 20
UNSURE, UNKNOWN = 0.2, 0.7  # dimensions over samples: above the first a warning, above the second no number
TARGET = "the distance at infinitely many samples, reference fixed"


class Jackknife(NamedTuple):
    """value: of all rows.   bias and standard_error: of that value.   groups: so many were left out."""

    value: float
    bias: float
    standard_error: float
    groups: int

    def at_infinity(self, level: float, seed: int | None = None) -> Estimate:
        """The value less its bias; the lower end of a distance is never below 0."""
        value = self.value - self.bias
        reach = t_of(level, self.groups - 1) * self.standard_error
        return Estimate(
            value,
            self.standard_error,
            max(value - reach, 0.0),
            value + reach,
            f"jackknife, {self.groups} groups",
            level,
            seed,
            TARGET,
        )


def group_of_rows(count: int, groups: int, seed: int | None) -> Tensor:
    """(count,) each row's group, i mod groups; shuffled first, because files lie in order of class."""
    if count < 2 * groups:
        raise DataError(f"{groups} groups need {2 * groups} samples, got {count}")
    labels = torch.arange(count) % groups
    if seed is None:
        return labels
    return labels[torch.randperm(count, generator=torch.Generator().manual_seed(seed))]


def frechet_jackknife(
    rows: Tensor, reference: Gaussian, *, groups: int = GROUPS, seed: int | None = 0, ddof: int = 1
) -> Jackknife:
    """Leave each group of rows out in turn: their scatter is taken off the whole.   rows: (n, d).

    Costs n d² and one set of eigenvalues for each group.
    """
    labels, parts = group_of_rows(len(rows), groups, seed), []
    for group in range(groups):
        parts.append(FeatureStatistics())
        parts[-1].update(rows[labels == group])
    of: Callable[[FeatureStatistics], float] = lambda s: _distance(s, reference, ddof)  # noqa: E731
    before = [FeatureStatistics()]
    for part in parts[:-1]:
        before.append(before[-1].merge(part))
    whole, after = before[-1].merge(parts[-1]), FeatureStatistics()
    values = [0.0] * groups
    for group in reversed(range(groups)):  # all before it and all after it: nothing is subtracted
        values[group] = of(before[group].merge(after))
        after = parts[group].merge(after)
    return jackknife_of(of(whole), values)


def jackknife_of(value: float, left_out: list[float]) -> Jackknife:
    """From the value of all rows and those with each group left out."""
    found = torch.tensor(left_out, dtype=torch.float64)
    groups, mean = len(found), found.mean()
    spread = ((groups - 1) / groups * (found - mean).square().sum()).sqrt()
    return Jackknife(value, float((groups - 1) * (mean - value)), float(spread), groups)


def _distance(statistics: FeatureStatistics, reference: Gaussian, ddof: int) -> float:
    own = statistics.gaussian(ddof=ddof)
    return frechet_distance(own.mean, own.covariance, reference.mean, reference.covariance)

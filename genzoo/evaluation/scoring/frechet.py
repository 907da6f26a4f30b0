"""Fréchet distances: FID, sFID, FVD and FDD are one formula on different features."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from genzoo.core.errors import DataError, UsageError
from genzoo.evaluation.intervals.estimate import Uncertainty, bare, of_mean
from genzoo.evaluation.intervals.frechet import METHOD, frechet_influence
from genzoo.evaluation.intervals.groups import UNKNOWN, UNSURE, frechet_jackknife
from genzoo.evaluation.measures.frechet import distance_between, frechet_distance
from genzoo.evaluation.measures.infinity import infinity_by_line
from genzoo.evaluation.scoring.rows import Estimates
from genzoo.evaluation.statistics import FeatureStatistics, Gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.evaluation.extraction import Features
    from genzoo.evaluation.reference import Reference

STATISTICS = {"fid": "pool", "sfid": "spatial", "frechet": "pool", "fvd": "pool", "fdd": "pool"}


def score_frechet(
    name: str, generated: Features, reference: Reference, how: Uncertainty | None, *, ddof: int = 1
) -> Estimates:
    output = STATISTICS[name]
    if output not in reference.gaussians:
        raise DataError(f"the reference has no statistics for {name} ({output})", fix="make it from images")
    own, other = generated.statistics[output].gaussian(ddof=ddof), reference.gaussians[output]
    if len(own.mean) != len(other.mean):
        raise UsageError(
            f"the reference has {len(other.mean)} dimensions, the network gives {len(own.mean)}",
            fix="use a reference made with the same feature network",
        )
    value = distance_between(own, other)
    rows = generated.rows.get(output)
    if how is None or rows is None:
        return {name: bare(value)}
    influence = frechet_influence(rows, own, other).influence
    found = {name: of_mean(value, influence, METHOD, how.level)}
    return found | _at_infinity(name, rows, other, how, ddof)


def _at_infinity(name: str, rows: Tensor, other: Gaussian, how: Uncertainty, ddof: int) -> Estimates:
    if how.infinity == "line":
        value = infinity_by_line(rows, lambda some: _distance_of(some, other, ddof), seed=how.seed)
        return {f"{name}_infinity_line": bare(value, "line in 1/n: for parity, no interval")}
    if how.infinity is None or rows.shape[1] > UNKNOWN * len(rows):
        return {}
    found = frechet_jackknife(rows, other, seed=how.seed, ddof=ddof).at_infinity(how.level, how.seed)
    share = rows.shape[1] / len(rows)
    if share > UNSURE:
        found = replace(found, method=f"{found.method}; unsure, {share:.2f} dimensions a sample")
    return {f"{name}_infinity": found}


def _distance_of(rows: Tensor, other: Gaussian, ddof: int) -> float:
    statistics = FeatureStatistics()
    statistics.update(rows)
    own = statistics.gaussian(ddof=ddof)
    return frechet_distance(own.mean, own.covariance, other.mean, other.covariance)

"""The interval of a Fréchet distance by influence functions: two eigendecompositions and a pass of the rows.

With R the root of the reference's covariance, R S R = V diag(a²) V^T and z_i = V^T R (x_i - mu):

    influence_i = 2 (mu - mu_Y).(x_i - mu) + q_i - mean q,   q_i = |x_i - mu|² - sum_j z_ij² / a_j
    bias        = (tr S + 1/2 [mean_i z_i²^T K z_i² - sum_j K_jj a_j⁴]) / n,  K_jk = 1 / (a_j a_k (a_j + a_k))

The influence is the derivative of the distance with respect to a sample's weight; the bias is what the second
derivative adds at n samples. Both agree with the jackknife that leaves every row out once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import DataError, ShapeError
from genzoo.evaluation.intervals.estimate import Estimate, of_mean
from genzoo.evaluation.statistics import Gaussian, check_features

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 2048
FLAT = 1e-12  # of the largest a²: directions with less hold rounding only
METHOD = "influence function"


@dataclass(frozen=True)
class FrechetInfluence:
    """value: the distance.   influence: (n,) float64, of mean 0.   bias: what of the value is due to n."""

    value: float
    influence: Tensor
    bias: float

    @property
    def standard_error(self) -> float:
        """Of the distance at this n."""
        n = len(self.influence)
        return float((self.influence.square().sum() / (n * (n - 1))).sqrt())

    def interval(self, level: float) -> Estimate:
        """Of the distance at this number of samples, which is what protocols print."""
        return of_mean(self.value, self.influence, METHOD, level)


def frechet_influence(rows: Tensor, own: Gaussian, reference: Gaussian) -> FrechetInfluence:
    """rows: (n, d), of which `own` is the mean and covariance; the reference is taken as exact. float64."""
    check_features(rows)
    if rows.shape[1] != len(reference.mean) or len(own.mean) != len(reference.mean):
        raise ShapeError(f"rows of {rows.shape[1]} dimensions, a reference of {len(reference.mean)}")
    if len(rows) < 2:
        raise DataError(f"an interval needs at least 2 rows, got {len(rows)}")
    root = _symmetric_root(reference.covariance)
    squares, vectors = torch.linalg.eigh(root @ own.covariance @ root)
    kept = squares > FLAT * squares.max().clamp_min(torch.finfo(torch.float64).tiny)
    a, turned = squares[kept].sqrt(), root @ vectors[:, kept]
    kernel = 1 / (a[:, None] * a[None, :] * (a[:, None] + a[None, :]))
    shift = own.mean - reference.mean
    linear, quadratic, fourth = [], [], torch.zeros((), dtype=torch.float64)
    for part in rows.split(BLOCK):
        centred = part.double().cpu() - own.mean
        z = (centred @ turned).square_()
        linear.append(2 * centred @ shift)
        quadratic.append(centred.square().sum(1) - z @ (1 / a))
        fourth += ((z @ kernel) * z).sum()
    q, trace = torch.cat(quadratic), own.covariance.trace()
    value = shift.square().sum() + trace + reference.covariance.trace() - 2 * a.sum()
    curvature = (fourth / len(rows) - (kernel.diagonal() * a**4).sum()) / 2
    return FrechetInfluence(
        float(value), torch.cat(linear) + q - q.mean(), float((trace + curvature) / len(rows))
    )


def _symmetric_root(covariance: Tensor) -> Tensor:
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * eigenvalues.clamp_min(0).sqrt()) @ vectors.T
    return root

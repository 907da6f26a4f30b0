"""Kernel Inception Distance: squared maximum mean discrepancy under the cubic kernel (Binkowski et al. 2018).

torchmetrics has the unbiased estimator and torch-fidelity all three; what is ours is the choice of subsets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from genzoo.core.errors import DataError, ShapeError, UsageError
from genzoo.core.optional import require
from genzoo.evaluation.statistics import check_features

if TYPE_CHECKING:
    from torch import Tensor

Estimator = Literal["unbiased", "biased", "u-statistic"]


class KernelDistance(NamedTuple):
    """Mean and spread of the subsets; usually printed times 1,000."""

    mean: float
    std: float


def polynomial_mmd(x: Tensor, y: Tensor, *, estimator: Estimator = "unbiased") -> float:
    """MMD^2 of two equally large sets under (x.y/d + 1)^3, in float64.   x, y: (m, d).

    unbiased: no diagonals, cross term over m^2.   u-statistic: no cross diagonal either.   biased: all kept.
    """
    if x.shape != y.shape:
        raise ShapeError(f"MMD takes two sets of one size, got {tuple(x.shape)} and {tuple(y.shape)}")
    x, y = x.cpu().double(), y.cpu().double()
    if estimator == "unbiased":
        return float(require("torchmetrics.image.kid").poly_mmd(y, x))
    if estimator not in ("biased", "u-statistic"):
        raise UsageError(
            f"there is no MMD estimator {estimator!r}; use 'unbiased', 'biased' or 'u-statistic'"
        )
    theirs = require("torch_fidelity.metric_kid", extra="eval")
    options = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    kernel = theirs.kernel_poly
    a, b = x.numpy(), y.numpy()
    blocks = kernel(a, a, **options), kernel(a, b, **options), kernel(b, b, **options)
    return float(theirs.mmd2(*blocks, mmd_est=estimator))


def kernel_distance(
    generated: Tensor,
    reference: Tensor,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
    estimator: Estimator = "unbiased",
) -> KernelDistance:
    """Mean and spread of MMD^2 over random subsets drawn without replacement, as torch-fidelity draws them.

    generated: (n, d), reference: (m, d).   Raises DataError when a set is smaller than a subset.
    """
    smallest = min(len(generated), len(reference))
    if smallest < subset_size or subset_size < 2:
        raise DataError(
            f"KID subsets of {subset_size} need that many images, the smaller set has {smallest}",
            fix="give more images, or a smaller subset size: the result then names it",
        )
    check_features(generated)
    check_features(reference)
    # the legacy generator is the protocol: torch-fidelity's subsets come from it, and so do published numbers
    random = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        rows = random.choice(len(generated), subset_size, replace=False)
        others = random.choice(len(reference), subset_size, replace=False)
        values.append(polynomial_mmd(generated[rows], reference[others], estimator=estimator))
    return KernelDistance(float(np.mean(values)), float(np.std(values)))

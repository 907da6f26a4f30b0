"""The Fréchet distance between two Gaussians: FID, sFID and FVD are this formula on different features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import NonFiniteError, ShapeError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.evaluation.statistics import Gaussian


def frechet_distance(mu_1: Tensor, sigma_1: Tensor, mu_2: Tensor, sigma_2: Tensor) -> float:
    """|mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)), in float64 (Heusel et al. 2017, Eq. 6).

    mu: (d,).   sigma: (d, d) symmetric, positive semi-definite.
    With S_1 = F F^T the eigenvalues of S_1 S_2 are those of the symmetric F^T S_2 F: real, never negative but
    for rounding, and found without a matrix square root. Equal sets may come out about 1e-13 of the traces
    below zero.
    """
    mu_1, sigma_1, mu_2, sigma_2 = (x.to(torch.float64) for x in (mu_1, sigma_1, mu_2, sigma_2))
    d = len(mu_1)
    if mu_1.shape != mu_2.shape or sigma_1.shape != (d, d) or sigma_2.shape != (d, d):
        shapes = [tuple(x.shape) for x in (mu_1, sigma_1, mu_2, sigma_2)]
        raise ShapeError(f"statistics do not fit together: {shapes}; both must come from one feature layer")
    if not all(torch.isfinite(x).all() for x in (mu_1, sigma_1, mu_2, sigma_2)):
        raise NonFiniteError("the feature statistics hold NaN or infinity, so no distance can be taken")
    cross = _trace_of_root(sigma_1, sigma_2)
    return float((mu_1 - mu_2).square().sum() + sigma_1.trace() + sigma_2.trace() - 2 * cross)


def frechet_of_rows(generated: Tensor, reference: Tensor, *, ddof: int = 1) -> float:
    """The same distance from the rows themselves: no d x d matrix, for far fewer rows than dimensions.

    generated: (n, d), reference: (m, d).   With centred rows A and B over the roots of n - ddof and m - ddof,
    tr (S_1 S_2)^(1/2) is the sum of the singular values of A B^T.
    """
    means, parts = [], []
    for rows in (generated, reference):
        if rows.dim() != 2 or len(rows) < 2 or rows.shape[1:] != generated.shape[1:]:
            raise ShapeError(f"features do not fit: {tuple(generated.shape)} and {tuple(reference.shape)}")
        means.append(rows.double().mean(0))
        parts.append((rows.double() - means[-1]) / (len(rows) - ddof) ** 0.5)
    shift, (a, b) = (means[0] - means[1]).square().sum(), parts
    return float(shift + a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum())


def _trace_of_root(sigma_1: Tensor, sigma_2: Tensor) -> Tensor:
    """tr (S_1 S_2)^(1/2)."""
    result: Tensor
    factor, failed = torch.linalg.cholesky_ex(sigma_1)
    if failed:
        # fewer images than dimensions: the roots of zero eigenvalues are off by 1e-8, singular values are not
        result = torch.linalg.svdvals(_root(sigma_1).T @ _root(sigma_2)).sum()
    else:
        result = torch.linalg.eigvalsh(factor.T @ sigma_2 @ factor).clamp_min(0).sqrt().sum()
    return result


def _root(sigma: Tensor) -> Tensor:
    """F with F F^T = S, whatever the rank of S."""
    eigenvalues, vectors = torch.linalg.eigh(sigma)
    root: Tensor = vectors * eigenvalues.clamp_min(0).sqrt()
    return root


def distance_between(generated: Gaussian, reference: Gaussian) -> float:
    """The Fréchet distance of statistics that divide by the same number. Raises UsageError otherwise."""
    if generated.ddof != reference.ddof:
        raise UsageError(
            f"one covariance divides by n - {generated.ddof}, the other by n - {reference.ddof}; "
            "make both with the same protocol"
        )
    return frechet_distance(generated.mean, generated.covariance, reference.mean, reference.covariance)

"""The least-squares merge of low-rank changes, in float64, on rows and matrices alone.

With changes D_i = B_i A_i, rows X_i (n_i, d) that a module sees under concept i, weights w, strengths s, and
rows P to leave alone,   min_D  sum w |(D - s D_i) X_i^T|^2  +  mu |D P^T|^2  +  lamb |D|^2.
D = [B_1 .. B_L] K, K = T M^-1, T = stack w s (A_i X_i^T) X_i, M = sum w X_i^T X_i + mu P^T P + lamb I: the
merge is a low-rank change again, of the sum of the ranks. M is never formed, see `RowFactor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.families.custom_diffusion.lora.changes import Change


@dataclass(frozen=True)
class RowFactor:
    """M = Y^T Y + lamb I of rows Y (n, d), for T M^-1.   Few rows: Y^T = Q S, and R of [S^T; sqrt(lamb) I],
    right for T within the span of Y; many: Q None and R of [Y; sqrt(lamb) I].
    """

    Q: Tensor | None
    R: Tensor

    def solve(self, T: Tensor) -> Tensor:
        """T M^-1, (m, d)."""
        inside = T if self.Q is None else T @ self.Q
        half = torch.linalg.solve_triangular(self.R.T, inside.T, upper=False)
        K = torch.linalg.solve_triangular(self.R, half, upper=True).T
        return K if self.Q is None else K @ self.Q.T


def row_factor(rows: Sequence[Tensor], weights: Sequence[float], lamb: float) -> RowFactor:
    """Of stacked rows (n_i, d) with their weights. Raises UsageError where M would be singular."""
    Y = torch.cat([row.double() * weight**0.5 for row, weight in zip(rows, weights, strict=True)])
    num, width = Y.shape
    if lamb <= 0 and num < width:
        raise UsageError("a least-squares merge of few rows needs a ridge", fix="lamb above 0, such as 1e-4")
    if num < width:
        Q, S = torch.linalg.qr(Y.T)
        return RowFactor(Q, torch.linalg.qr(_with_ridge(S.T, lamb), mode="r").R)
    return RowFactor(None, torch.linalg.qr(_with_ridge(Y, lamb), mode="r").R)


def merge_changes(
    changes: Sequence[Change],
    rows: Sequence[Tensor],
    *,
    factor: RowFactor,
    weights: Sequence[float],
    strengths: Sequence[float],
) -> Change:
    """The change that acts on each concept's rows (n_i, d) as its own does, as far as that goes.

    Low-rank changes give a low-rank one; a dense one among them makes it dense. float64.
    """
    ups, stacked, dense = [], [], None
    for change, X, weight, strength in zip(changes, rows, weights, strengths, strict=True):
        inputs = X.double()
        left = change.delta if change.dense is not None else change.down
        assert left is not None
        T = weight * strength * (left.double() @ inputs.T) @ inputs
        if change.dense is not None:
            dense = T if dense is None else dense + T
        else:
            assert change.up is not None
            ups.append(change.up.double())
            stacked.append(T)
    if dense is None:
        return Change(torch.cat(ups, 1), factor.solve(torch.cat(stacked)))
    D = factor.solve(dense)
    if ups:
        D = D + torch.cat(ups, 1) @ factor.solve(torch.cat(stacked))
    return Change(dense=D)


def average(changes: Sequence[Change], strengths: Sequence[float], *, total: float) -> Change:
    """sum s D_i / total, of the sum of the ranks."""
    scaled = [change.scaled(strength / total) for change, strength in zip(changes, strengths, strict=True)]
    if any(change.dense is not None for change in scaled):
        return Change(dense=torch.stack([change.delta for change in scaled]).sum(0))
    ups = [change.up.double() for change in scaled if change.up is not None]
    downs = [change.down.double() for change in scaled if change.down is not None]
    return Change(torch.cat(ups, 1), torch.cat(downs))


def squares(D: Change, change: Change, strength: float, X: Tensor) -> tuple[Tensor, Tensor]:
    """|(D - s D_i) X^T|^2 and |s D_i X^T|^2."""
    wanted = strength * _acts(change, X)
    return (_acts(D, X) - wanted).square().sum(), wanted.square().sum()


def regression_mean(
    weights: Sequence[Tensor],
    rows: Sequence[Tensor],
    shares: Sequence[float],
    *,
    off_diagonal: float | None = None,
) -> Tensor:
    """RegMean: sum w W_i G_i (sum w G_i)^-1 of full weights (out, d), with G_i = X_i^T X_i whose off-diagonal
    entries are multiplied by `off_diagonal`.
    """
    width = weights[0].shape[1]
    left, total = torch.zeros(weights[0].shape, dtype=torch.float64), torch.zeros(width, width).double()
    for W, X, share in zip(weights, rows, shares, strict=True):
        G = share * (X.double().T @ X.double())
        if off_diagonal is not None:
            G = off_diagonal * G + (1 - off_diagonal) * torch.diag(G.diagonal())
        left, total = left + W.double() @ G, total + G
    return torch.linalg.solve(total, left, left=False)


def _acts(change: Change, X: Tensor) -> Tensor:
    """D X^T, (out, n)."""
    if change.dense is not None:
        return change.dense.double() @ X.double().T
    assert change.up is not None
    assert change.down is not None
    return change.up.double() @ (change.down.double() @ X.double().T)


def _with_ridge(rows: Tensor, lamb: float) -> Tensor:
    return torch.cat([rows, lamb**0.5 * torch.eye(rows.shape[1], dtype=rows.dtype)])

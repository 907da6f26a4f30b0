"""The least-squares merge of low-rank changes, in float64, on rows and matrices alone.

With changes D_i = B_i A_i, rows X_i (n_i, d) that a module sees under concept i, weights w, strengths s, and
rows P to leave alone,   min_D  sum w |(D - s D_i) X_i^T|^2  +  mu |D P^T|^2  +  lamb |D|^2.
D = [B_1 .. B_L] K, K = T M^-1, T = stack w s (A_i X_i^T) X_i, M = sum w X_i^T X_i + mu P^T P + lamb I: the
merge is a low-rank change again, of the sum of the ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.families.custom_diffusion.lora.changes import Change

# of M up to which Cholesky factors of Gram matrices are exact enough (error below condition times 2e-16)
MAX_CONDITION = 1e7


@dataclass(frozen=True)
class RowFactor:
    """M = Y^T Y + lamb I of weighted rows Y (n, d), for sums of products P Y M^-1.

    Fewer rows than columns: P Y M^-1 = P (Y Y^T + lamb I)^-1 Y, with L the Cholesky factor of the inner
    matrix; many: L that of M. Where lamb is too small for that (MAX_CONDITION), triangles of QR: Y^T = Q S
    and R of [S^T; sqrt(lamb) I], or R of [Y; sqrt(lamb) I].   spans: of each piece of rows in Y.
    """

    Y: Tensor
    spans: tuple[slice, ...]
    L: Tensor | None = None
    Q: Tensor | None = None
    R: Tensor | None = None

    def solve(self, coefficients: Mapping[int, Tensor]) -> list[Tensor]:
        """(P_i Y_i) M^-1, (m_i, d) for P_i (m_i, n_i), each on the rows of one piece."""
        sizes = [len(P) for P in coefficients.values()]
        if self.L is not None and len(self.L) == len(self.Y) < self.Y.shape[1]:
            whole = self.Y.new_zeros(sum(sizes), len(self.Y))
            for rows, (piece, P) in zip(whole.split(sizes), coefficients.items(), strict=True):
                rows[:, self.spans[piece]] = P
            K = torch.cholesky_solve(whole.T, self.L).T @ self.Y
        else:
            T = torch.cat([P @ self.Y[self.spans[piece]] for piece, P in coefficients.items()])
            K = torch.cholesky_solve(T.T, self.L).T if self.L is not None else self._by_triangles(T)
        return list(K.split(sizes))

    def _by_triangles(self, T: Tensor) -> Tensor:
        assert self.R is not None
        inside = T if self.Q is None else T @ self.Q
        half = torch.linalg.solve_triangular(self.R.T, inside.T, upper=False)
        K = torch.linalg.solve_triangular(self.R, half, upper=True).T
        return K if self.Q is None else K @ self.Q.T


def row_factor(rows: Sequence[Tensor], weights: Sequence[float], lamb: float) -> RowFactor:
    """Of stacked rows (n_i, d) with their weights. Raises UsageError where M would be singular."""
    Y = torch.cat([row.double() * weight**0.5 for row, weight in zip(rows, weights, strict=True)])
    ends = torch.tensor([len(row) for row in rows]).cumsum(0).tolist()
    spans = tuple(slice(end - len(row), end) for end, row in zip(ends, rows, strict=True))
    num, width = Y.shape
    if lamb <= 0 and num < width:
        raise UsageError("a least-squares merge of few rows needs a ridge", fix="lamb above 0, such as 1e-4")
    gram = Y @ Y.T if num < width else Y.T @ Y
    if lamb > 0 and float(gram.abs().sum(1).max()) <= MAX_CONDITION * lamb:
        gram.diagonal().add_(lamb)
        return RowFactor(Y, spans, L=torch.linalg.cholesky(gram))
    if num < width:
        Q, S = torch.linalg.qr(Y.T)
        return RowFactor(Y, spans, Q=Q, R=torch.linalg.qr(_with_ridge(S.T, lamb), mode="r").R)
    return RowFactor(Y, spans, R=torch.linalg.qr(_with_ridge(Y, lamb), mode="r").R)


def merge_changes(
    changes: Sequence[Change],
    *,
    factor: RowFactor,
    strengths: Sequence[float],
    pieces: Sequence[int] | None = None,
) -> Change:
    """The change that acts on each concept's rows as its own does, as far as that goes.

    pieces: whose rows in the factor each change's concept saw; in order when left out. Low-rank changes give
    a low-rank one; a dense one among them makes it dense. float64.
    """
    ups, stacked, dense = [], {}, {}
    for number, (change, strength) in enumerate(zip(changes, strengths, strict=True)):
        piece = number if pieces is None else pieces[number]
        left = change.delta if change.dense is not None else change.down
        assert left is not None
        # w s (L X^T) X in terms of Y's rows, which are sqrt(w) X
        P = strength * (left.double() @ factor.Y[factor.spans[piece]].T)
        if change.dense is not None:
            dense[piece] = P
        else:
            assert change.up is not None
            ups.append(change.up.double())
            stacked[piece] = P
    if not dense:
        return Change(torch.cat(ups, 1), torch.cat(factor.solve(stacked)))
    D = torch.stack(factor.solve(dense)).sum(0)
    if ups:
        D = D + torch.cat(ups, 1) @ torch.cat(factor.solve(stacked))
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

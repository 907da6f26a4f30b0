"""From what the target rows lack to a change of the projection, shared by every projection of a merge.

With R^T R = C_reg^T C_reg and B = C R^-1 the change is W - W_0 = E lift, in the coordinates X = (W - W_0)
R^T: exact targets    the least-norm solution of X B^T = E
weighted ones    min |X|^2 + |(X B^T - E) A^1/2|^2: QR of [B^T; A^-1/2] = [Q_1; Q_2] R_2, X = E R_2^-1 Q_1^T
Large weights make the second block vanish, and the second form the first. Letters as in `algebra`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.families.custom_diffusion.merge.correct import corrected
from genzoo.families.custom_diffusion.merge.factor import Factor, without_correction

# beyond this condition number of the target rows, a pseudo-inverse drops what cannot be told apart
MAX_ROW_CONDITION, PINV_TOLERANCE = 1e8, 1e-10


class Lift(NamedTuple):
    """matrix: (m, d).   weight_norm: (m, d or r), with ||(W - W_0) C_reg^T||_F = ||E weight_norm||_F.

    row_condition: of the whitened target rows.   method: of the factor that it came from.
    """

    matrix: Tensor
    weight_norm: Tensor
    row_condition: float
    method: str


def lift_of(C: Tensor, factor: Factor, weights: Tensor | None = None) -> Lift:
    """What the target rows C (m, d) ask for.   weights: (m,) positive; None for exact targets."""
    if factor.whiten is not None:
        B_t = torch.linalg.solve_triangular(factor.whiten.T, C.T, upper=False)
        solved = _pseudo_inverse(B_t) if weights is None else _damped_inverse(B_t, weights)
        lift: Tensor | None = torch.linalg.solve_triangular(factor.whiten, solved.inverse.T, upper=True).T
        if factor.rows is not None and lift is not None:
            lift = None if solved.met is None else corrected(lift, factor, solved.met)
        if lift is None:
            return lift_of(C, without_correction(factor), weights)
        return Lift(lift, solved.inverse, solved.condition, factor.method)
    if weights is not None:
        raise UsageError(
            f"the rows to keep span {factor.rank} of {C.shape[1]} directions, and nothing holds the others",
            fix="a ridge (lamb) above 0, or more captions to keep",
        )
    assert factor.basis is not None
    assert factor.free is not None
    assert factor.singular_values is not None
    return Lift(*_lift_deficient(C, factor.basis, factor.singular_values, factor.free), factor.method)


def _lift_deficient(C: Tensor, basis: Tensor, values: Tensor, free: Tensor) -> tuple[Tensor, Tensor, float]:
    """The limit of a vanishing ridge: directions that no regularisation row sees are used first, at no cost.

    What they cannot supply is solved in the seen directions; then the free ones take the rest, least norm.
    """
    in_free, whitened = C @ free, (C @ basis) / values
    # features are float32: a smaller part of a row in the free directions is rounding, not a handle
    left, sizes, right_t = torch.linalg.svd(in_free, full_matrices=True)
    usable = int((sizes > 1e-6 * C.norm(dim=1).max()).sum()) if len(C) else 0
    unreachable = left[:, usable:]
    inverse, condition, _ = _pseudo_inverse(whitened.T @ unreachable)
    weight_norm = unreachable @ inverse
    from_seen = (weight_norm / values) @ basis.T
    rest = torch.eye(len(C), dtype=C.dtype) - weight_norm @ whitened.T
    from_free = (rest @ left[:, :usable] / sizes[:usable]) @ right_t[:usable] @ free.T
    return from_seen + from_free, weight_norm, condition


class _Inverse(NamedTuple):
    """inverse: Y (m, d), the solution is X = E Y.   met: (d, m), I - met met^T leaves the targets alone, or
    None where some of them were given up.
    """

    inverse: Tensor
    condition: float
    met: Tensor | None


def _pseudo_inverse(B_t: Tensor) -> _Inverse:
    """X = E Y is the least-norm solution of X B_t = E, with cond(B_t); B_t is (d, m)."""
    if B_t.shape[1] == 0:
        return _Inverse(B_t.T.clone(), 1.0, B_t)
    scale = B_t.norm(dim=0).clamp_min(torch.finfo(B_t.dtype).tiny)
    Q, R = torch.linalg.qr(B_t / scale)
    if R.shape[0] == R.shape[1]:
        sizes = torch.linalg.svdvals(R)
        condition = float(sizes[0] / sizes[-1]) if sizes[-1] > 0 else float("inf")
        if condition <= MAX_ROW_CONDITION:
            # X = (E scale^-1) R^-1 Q^T
            inverse = torch.linalg.solve_triangular(R, Q.T, upper=True) / scale[:, None]
            return _Inverse(inverse, condition, Q)
    else:
        condition = float("inf")
    # rows that nearly depend on each other: unscaled, so that the residual is spread by least squares
    return _Inverse(torch.linalg.pinv(B_t, rtol=PINV_TOLERANCE), condition, None)


def _damped_inverse(B_t: Tensor, weights: Tensor) -> _Inverse:
    """X = E Y is the weighted least-squares solution of X B_t = E, with cond(R_2); B_t is (d, m)."""
    width, num = B_t.shape
    if num == 0:
        return _Inverse(B_t.T.clone(), 1.0, B_t)
    Q, R = torch.linalg.qr(torch.cat([B_t, torch.diag(weights.double().rsqrt())]))
    sizes = torch.linalg.svdvals(R)
    inverse = torch.linalg.solve_triangular(R, Q[:width].T, upper=True)
    return _Inverse(inverse, float(sizes[0] / sizes[-1]), Q[:width])

"""Corrects a lift that came from a Cholesky factor of normal equations, by thin products with the rows.

R^T R misses G by rounding, and F = R^-T G R^-1 - I is about cond^2 x 2e-16. With the projector P that leaves
the target rows alone, the lift of the true G is a Neumann series, whose terms shrink by P F:
    D_0 = lift,   D_(k+1)^T = -R^-1 P (R^-T C_reg^T C_reg D_k^T - R D_k^T),   lift = D_0 + D_1 + ...
What is left is the error of QR, cond x 2e-16 (Björck's corrected seminormal equations). Letters: `algebra`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genzoo.families.custom_diffusion.merge.factor import BLOCK_ROWS, Factor

# the promise is 1e-9 of an update; the terms left out are to be well below it
LEFT_OUT, MAX_TERMS = 1e-11, 3
# F in units of cond^2 x 2e-16: 1 to 8 were measured at 1,000 to 77,000 rows, 8 to 768 wide
GROWTH = 32.0


def corrected(lift: Tensor, factor: Factor, met: Tensor) -> Tensor | None:
    """The lift (m, d) by the true rows; None where the terms do not vanish soon.

    met: (d, m) with P = I - met met^T, for exact targets an orthonormal basis of R^-T C^T.
    """
    assert factor.whiten is not None
    assert factor.rows is not None
    R, sizes = factor.whiten, lift.norm(dim=1)
    total, term, former = lift, lift.T, 1.0
    shrinks = GROWTH * factor.condition**2 * torch.finfo(torch.float64).eps
    for _ in range(MAX_TERMS):
        white = torch.linalg.solve_triangular(R.T, _times_gram(factor.rows, term), upper=False) - R @ term
        term = -torch.linalg.solve_triangular(R, white - met @ (met.T @ white), upper=True)
        total = total + term.T
        size = float((term.norm(dim=0) / sizes).max()) if len(lift) else 0.0
        shrinks = max(shrinks, size / former)
        if size * shrinks <= LEFT_OUT:
            return total
        former = size
    return None


def _times_gram(rows: Tensor, X: Tensor) -> Tensor:
    """C_reg^T C_reg X for a few columns X (d, m), a block of rows at a time."""
    product = torch.zeros_like(X)
    for part in rows.split(BLOCK_ROWS):
        block = part.double()
        product.addmm_(block.T, block @ X)
    return product

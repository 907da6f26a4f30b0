"""The merge in rational numbers: Eq. 5 without rounding, with a ridge that vanishes for deficient rows."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

Matrix = list[list[Fraction]]


def exact_merge(W_0: Tensor, C: Tensor, V: Tensor, C_reg: Tensor, ridge: Fraction = Fraction(0)) -> Tensor:
    """W_0 + (V^T - W_0 C^T)(C G^-1 C^T)^-1 C G^-1 with G = C_reg^T C_reg + ridge, rounded at the end."""
    base, rows, values, reg = (_rational(x) for x in (W_0, C, V, C_reg))
    G = _times(_transposed(reg), reg)
    for i in range(len(G)):
        G[i][i] += ridge
    D = _transposed(_solve(G, _transposed(rows)))
    gap = _minus(_transposed(values), _times(base, _transposed(rows)))
    multipliers = _transposed(_solve(_times(rows, _transposed(D)), _transposed(gap)))
    change = _times(multipliers, D)
    return torch.tensor(
        [[float(a + b) for a, b in zip(r, q, strict=True)] for r, q in zip(base, change, strict=True)],
        dtype=torch.float64,
    )


def _rational(x: Tensor) -> Matrix:
    return [[Fraction(value) for value in row] for row in x.double().tolist()]


def _transposed(a: Matrix) -> Matrix:
    return [list(column) for column in zip(*a, strict=True)]


def _times(a: Matrix, b: Matrix) -> Matrix:
    columns = _transposed(b)
    return [[sum((x * y for x, y in zip(r, c, strict=True)), Fraction(0)) for c in columns] for r in a]


def _minus(a: Matrix, b: Matrix) -> Matrix:
    return [[x - y for x, y in zip(r, q, strict=True)] for r, q in zip(a, b, strict=True)]


def _solve(a: Matrix, b: Matrix) -> Matrix:
    """Gauss-Jordan; exact, so any non-zero pivot serves."""
    rows = [list(r) + list(q) for r, q in zip(a, b, strict=True)]
    for k in range(len(rows)):
        pivot = next(i for i in range(k, len(rows)) if rows[i][k] != 0)
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [value / rows[k][k] for value in rows[k]]
        for i in range(len(rows)):
            if i != k and rows[i][k] != 0:
                factor = rows[i][k]
                rows[i] = [x - factor * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[len(a) :] for row in rows]

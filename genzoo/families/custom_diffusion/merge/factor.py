"""One factor of the regularisation rows, shared by every matrix of a merge. Everything here is float64.

Only G = C_reg^T C_reg enters the merge, and only through a factor R with R^T R = G. Forming G squares the
condition number, so R comes from QR; or, when the rows are many, from Cholesky of G where the condition, of
which a small random sketch of the rows tells, allows it. Up to 1e6 what comes of R is then corrected by the
rows themselves (`correct`); beyond, the rows are whitened first by the sketch's factor. Any such sketch does:
what it lacks, the second factor supplies.
Letters: s_reg regularisation rows, d width, r rank.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

BLOCK_ROWS = 8192
# the short ways save time only when rows far outnumber the width
MANY_ROWS_PER_WIDTH = 8
# cond^2 * 2e-16 is the error of the normal equations: at 1e3, ten digits remain
CHOLESKY_MAX_CONDITION = 1e3
# two or three thin products with the rows make up for normal equations up to here
CORRECTED_MAX_CONDITION = 1e6
# whitened rows have a condition of about 3; of a bad sketch more, and then they are whitened once more
WHITENED_MAX_CONDITION, WHITENED_ROUNDS = 30.0, 3
# beyond this, rounding in the whitened rows begins to show, as it does in QR
SKETCH_MAX_CONDITION = 1e8
# two tables: rows that meet in one bucket of a table hardly ever meet in the other as well
SKETCH_TABLES, SKETCH_ROWS_PER_WIDTH = 2, 2


@dataclass(frozen=True)
class Factor:
    """How directions of the width d are paid for.

    whiten: R, with R^T R = G on the row space; (d, d) upper triangular, or None when the rank is deficient.
    basis, singular_values: (d, r), (r,) of that row space, and free: (d, d - r), the directions that no
    regularisation row sees; given only when the rank is deficient.
    rows: C_reg, where R is no more exact than the normal equations and `correct` makes up for that.
    """

    whiten: Tensor | None
    basis: Tensor | None
    singular_values: Tensor | None
    free: Tensor | None
    condition: float
    rank: int
    method: str
    rows: Tensor | None = None


def factorise(C_reg: Tensor, *, rank_tolerance: float = 1e-10) -> Factor:
    """Factor the rows C_reg (s_reg, d), whatever their dtype, in blocks: 77,000 rows need no float64 copy.

    rank_tolerance: singular values below this fraction of the largest count as zero.
    """
    num_rows, width = C_reg.shape
    if num_rows > MANY_ROWS_PER_WIDTH * width:
        factor = _of_many_rows(C_reg, rank_tolerance)
        if factor is not None:
            return factor
    R = _triangle(C_reg)
    if R.shape[0] == width:
        condition = condition_of_triangle(R)
        if condition * rank_tolerance < 1:
            return Factor(R, None, None, None, condition, width, "qr")
    return _by_svd(R, rank_tolerance)


def _of_many_rows(C_reg: Tensor, rank_tolerance: float) -> Factor | None:
    """The factor from normal equations; None when the rank is deficient or near it."""
    limit = min(SKETCH_MAX_CONDITION, 0.1 / rank_tolerance)
    R = torch.linalg.qr(_sketch(C_reg), mode="r").R
    condition = condition_of_triangle(R)
    if condition > limit:
        return None
    # a sketch is right within a factor of two or so
    expected = 4 * condition
    by_gram = expected <= CORRECTED_MAX_CONDITION
    R, failed = _of_gram(C_reg) if by_gram else _whitened(C_reg, R)
    condition = float("inf") if failed else condition_of_triangle(R)
    if condition > limit:
        return None
    method, rows = "cholesky" if by_gram else "sketch and cholesky", None
    if by_gram and max(expected, condition) > CHOLESKY_MAX_CONDITION:
        method, rows = "cholesky, corrected", C_reg
    return Factor(R, None, None, None, condition, C_reg.shape[1], method, rows)


def _of_gram(C_reg: Tensor) -> tuple[Tensor, bool]:
    """The factor of the normal equations, and whether that failed."""
    R, failed = torch.linalg.cholesky_ex(_gram(C_reg), upper=True)
    return R, bool(failed)


def without_correction(factor: Factor) -> Factor:
    """A factor that is exact by itself, from one whose `rows` were to correct what comes of it."""
    assert factor.whiten is not None
    assert factor.rows is not None
    method = "sketch and cholesky"
    R, failed = _whitened(factor.rows, factor.whiten)
    if failed:
        R, method = _triangle(factor.rows), "qr"
    return replace(factor, whiten=R, condition=condition_of_triangle(R), method=method, rows=None)


def _whitened(C_reg: Tensor, R: Tensor) -> tuple[Tensor, bool]:
    """The factor of rows that a first factor R makes well conditioned, and whether that failed."""
    for _ in range(WHITENED_ROUNDS):
        second, failed = torch.linalg.cholesky_ex(_gram(C_reg, whiten=R), upper=True)
        if failed:
            break
        R = second @ R
        if condition_of_triangle(second) <= WHITENED_MAX_CONDITION:
            return R, False
    return R, True


def _sketch(C_reg: Tensor) -> Tensor:
    """A few rows that are sums of all rows with random signs (count sketches), (about 4 d, d) float64.

    In the precision of the rows: the sketch only has to be near, and this pass is bound by memory.
    """
    num_rows, width = C_reg.shape
    rows = C_reg if C_reg.dtype in (torch.float32, torch.float64) else C_reg.float()
    generator = torch.Generator().manual_seed(0)
    tables = []
    for extra in range(SKETCH_TABLES):
        # row i goes to bucket i modulo the size, which differs between the tables
        size = SKETCH_ROWS_PER_WIDTH * width + extra
        signs = torch.randint(2, (num_rows, 1), generator=generator).to(rows.dtype) * 2 - 1
        table = rows.new_zeros(size, width)
        for block, sign in zip(rows.split(size), signs.split(size), strict=True):
            table[: len(block)].addcmul_(block, sign)
        tables.append(table.double())
    return torch.cat(tables)


def _gram(C_reg: Tensor, *, whiten: Tensor | None = None, panels: int = 4) -> Tensor:
    """X^T X (d, d) of X = C_reg, or C_reg whiten^-1; only panels on and above the diagonal are multiplied."""
    width = C_reg.shape[1]
    edges = [round(width * k / panels) for k in range(panels + 1)]
    spans = list(itertools.pairwise(edges))
    G = C_reg.new_zeros(width, width, dtype=torch.float64)
    inverse = None if whiten is None else _inverse(whiten)
    for rows in C_reg.split(BLOCK_ROWS):
        block = rows.double()
        if inverse is not None:
            # the inverse is triangular too; a product with it takes half the time of a triangular solve
            white = torch.empty_like(block)
            for left, right in spans:
                torch.mm(block[:, :right], inverse[:right, left:right], out=white[:, left:right])
            block = white
        for left, right in spans:
            G[:right, left:right].addmm_(block[:, :right].T, block[:, left:right])
    return G.triu() + G.triu(1).T


def _inverse(R: Tensor) -> Tensor:
    """R^-1 of an upper triangle (d, d)."""
    return torch.linalg.solve_triangular(R, torch.eye(len(R), dtype=R.dtype), upper=True)


def _triangle(C_reg: Tensor) -> Tensor:
    """R of the QR of C_reg, (min(s_reg, d), d), folding in a block of rows at a time."""
    first, *others = C_reg.split(BLOCK_ROWS)
    R = torch.linalg.qr(first.double(), mode="r").R
    for rows in others:
        R = torch.linalg.qr(torch.cat([R, rows.double()]), mode="r").R
    return R


def _by_svd(R: Tensor, rank_tolerance: float) -> Factor:
    """Split the width into directions that regularisation sees and those that it does not."""
    _, values, basis_t = torch.linalg.svd(R, full_matrices=True)
    largest = values[0] if len(values) else values.new_zeros(())
    rank = int((values > rank_tolerance * largest).sum())
    condition = float(largest / values[rank - 1]) if rank else float("inf")
    seen, free = basis_t[:rank].T, basis_t[rank:].T
    return Factor(None, seen, values[:rank], free, condition, rank, "svd")


def condition_of_triangle(R: Tensor, *, steps: int = 32) -> float:
    """sigma_max / sigma_min of a triangle (d, d), by Lanczos on R^T R and on its inverse; inf when singular.

    An estimate from below, within a percent or so; exact when `steps` reaches d.
    """
    if not bool((R.diagonal() != 0).all()):
        return float("inf")

    def inverse(x: Tensor) -> Tensor:
        half = torch.linalg.solve_triangular(R.T, x[:, None], upper=False)
        return torch.linalg.solve_triangular(R, half, upper=True)[:, 0]

    largest = _dominant(lambda x: R.T @ (R @ x), len(R), steps)
    smallest_inverse = _dominant(inverse, len(R), steps)
    return (largest * smallest_inverse) ** 0.5


def _dominant(apply: Callable[[Tensor], Tensor], size: int, steps: int) -> float:
    """The largest eigenvalue of a symmetric positive operator on `size` numbers, by Lanczos iteration."""
    x = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x / x.norm()
    basis, diagonal, beside = [x], [], []
    for _ in range(min(steps, size)):
        y = apply(basis[-1])
        if not bool(torch.isfinite(y).all()):
            return float("inf")
        diagonal.append(float(basis[-1] @ y))
        known = torch.stack(basis)
        # twice: in floating point, one pass leaves old directions behind
        for _ in range(2):
            y = y - (known @ y) @ known
        beside.append(float(y.norm()))
        if beside[-1] <= 1e-14 * max(diagonal):
            break
        basis.append(y / beside[-1])
    T = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    off = torch.tensor(beside[: len(diagonal) - 1], dtype=torch.float64)
    return float(torch.linalg.eigvalsh(T + torch.diag(off, 1) + torch.diag(off, -1))[-1])

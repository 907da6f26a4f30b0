"""The closed-form merge of concepts (Custom Diffusion, Eq. 4 and 5): pure algebra on matrices, in float64.

For each key or value projection,   min_W ||(W - W_0) C_reg^T||_F   subject to   W C^T = V^T;
or, with a weight a for each target row,   min_W ||(W - W_0) C_reg^T||_F^2 + sum a |W c - v|^2   (Unified
Concept Editing, Eq. 7), of which the first is the limit of large weights. With a factor R^T R = C_reg^T
C_reg, both are solved in the coordinates X = (W - W_0) R^T by one matrix, see `lift`. E = V^T - W_0 C^T.
Letters: s target rows, s_reg regularisation rows, d width of the text features, out width of the projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import torch
from torch import Tensor

from genzoo.core.errors import NonFiniteError, ShapeError, UsageError
from genzoo.families.custom_diffusion.merge.factor import Factor, factorise
from genzoo.families.custom_diffusion.merge.lift import lift_of

CONFLICTS = ("mean", "first", "error")
# two rows of this relative distance are one row: float32 features repeat to about 1e-7
SAME_ROW = 1e-9
BLOCK_OUT = 160


class Solved(NamedTuple):
    """W: (out, d) float64.   objective: ||(W - W_0) C_reg^T||_F.   residual: max |W C^T - V^T| over all
    target rows, the conflicting ones included.
    """

    W: Tensor
    objective: float
    residual: float


@dataclass(frozen=True)
class MergePlan:
    """All of a merge that does not depend on the projection.

    C_kept: (m, d) the target rows that were kept.   keep: (m, s), averages the rows of V that share one
    feature.   lift: (m, d), with W = W_0 + E lift.   root: (m, m), with ||(W - W_0) C_reg^T||_F =
    ||E root||_F.   clashes: pairs of target rows that ask for different values of the same feature.
    condition, rank: of the regularisation rows; row_condition: of the target rows after whitening.
    """

    C: Tensor
    C_kept: Tensor
    keep: Tensor
    lift: Tensor
    root: Tensor
    clashes: tuple[tuple[int, int], ...]
    condition: float
    rank: int
    row_condition: float
    method: str

    def solve(self, W_0: Tensor, V: Tensor) -> Solved:
        """The merged projection (out, d) of W_0 (out, d) and the values V (s, out), of any dtype.

        Rows of W_0 are independent problems: a few at a time stay in the processor's cache.
        """
        W = torch.empty(W_0.shape, dtype=torch.float64)
        values, squared, residual = V.double(), 0.0, 0.0
        for rows in torch.arange(len(W_0)).split(BLOCK_OUT):
            block = slice(int(rows[0]), int(rows[-1]) + 1)
            out, wanted = W[block], values[:, block]
            out.copy_(W_0[block])
            E = (self.keep @ wanted).T - out @ self.C_kept.T
            out.addmm_(E, self.lift)
            squared += float((E @ self.root).square().sum())
            if len(values):
                residual = max(residual, float((out @ self.C.T - wanted.T).abs().max()))
        return Solved(W, squared**0.5, residual)

    def lacking(self, W_0: Tensor, V: Tensor) -> Tensor:
        """E (out, m): what W_0 lacks at the kept target rows."""
        return (self.keep @ V.double()).T - W_0.double() @ self.C_kept.T


@dataclass(frozen=True)
class MergeResult:
    """Merged projections (out, d), float64, with the plan that made them; the lists go by projection."""

    weights: list[Tensor]
    constraint_residual: list[float]
    objective: list[float]
    plan: MergePlan


@overload
def merge_weights(W_0: Tensor, C: Tensor, V: Tensor, C_reg: Tensor, *, conflicts: str = ...) -> Tensor: ...
@overload
def merge_weights(
    W_0: Sequence[Tensor], C: Tensor, V: Sequence[Tensor], C_reg: Tensor, *, conflicts: str = ...
) -> list[Tensor]: ...
def merge_weights(
    W_0: Tensor | Sequence[Tensor],
    C: Tensor,
    V: Tensor | Sequence[Tensor],
    C_reg: Tensor,
    *,
    conflicts: str = "mean",
) -> Tensor | list[Tensor]:
    """Projections that give the target rows their values and move as little as can be elsewhere (Eq. 4, 5).

    W_0: (out, d), or a sequence of projections with different `out`.   C: (s, d) target rows of all concepts.
    V: (s, out) their values, or a sequence beside W_0.   C_reg: (s_reg, d) rows to leave alone.
    conflicts: when rows of C coincide but their values differ, "mean" (the least-squares answer, independent
    of the order), "first", or "error". Returns W_0's form in float64: cast to the storage dtype last.
    Raises ShapeError, NonFiniteError.
    """
    single = isinstance(W_0, Tensor)
    result = merge_with_report(
        [W_0] if isinstance(W_0, Tensor) else W_0,
        C,
        [V] if isinstance(V, Tensor) else V,
        C_reg,
        conflicts=conflicts,
    )
    return result.weights[0] if single else result.weights


def merge_with_report(
    W_0: Sequence[Tensor], C: Tensor, V: Sequence[Tensor], C_reg: Tensor, *, conflicts: str = "mean"
) -> MergeResult:
    """`merge_weights` of several projections, with the residual and objective of each."""
    _check(W_0, C, V, C_reg)
    plan = plan_merge(C, C_reg, V=V, conflicts=conflicts)
    solved = [plan.solve(base, values) for base, values in zip(W_0, V, strict=True)]
    return MergeResult(
        [one.W for one in solved], [one.residual for one in solved], [one.objective for one in solved], plan
    )


def plan_merge(
    C: Tensor,
    C_reg: Tensor,
    *,
    V: Sequence[Tensor] | None = None,
    conflicts: str = "mean",
    rank_tolerance: float = 1e-10,
    factor: Factor | None = None,
    weights: Tensor | None = None,
) -> MergePlan:
    """Everything that the projections share; a factor already at hand is reused.

    V: (s, out) values of all projections, only to tell repeated rows from conflicting ones; without them,
    every repetition counts as a conflict. rank_tolerance: as in `factorise`.   weights: (s,) positive, of
    the target rows, which are then met as far as their weights go; rows that repeat share theirs, and
    `conflicts` says nothing. None: they are met exactly.
    """
    if conflicts not in CONFLICTS:
        raise UsageError(f"conflicts={conflicts!r} is not known", fix=f"one of {', '.join(CONFLICTS)}")
    factor = factor or factorise(C_reg, rank_tolerance=rank_tolerance)
    rows = C.double()
    groups = _group_rows(rows) if weights is None else [[index] for index in range(len(rows))]
    clashes = _clashes(groups, V)
    if clashes and conflicts == "error":
        first, second = clashes[0]
        raise UsageError(
            f"target rows {first} and {second} are the same feature with different values",
            why=f"{len(clashes)} such pairs",
            fix='conflicts="mean" or "first"',
        )
    keep = _keep_matrix(groups, len(rows), first_only=conflicts == "first", like=rows)
    kept = keep @ rows
    lift = lift_of(kept, factor, weights)
    root = torch.linalg.qr(lift.weight_norm.T, mode="r").R.T
    return MergePlan(
        C=rows,
        C_kept=kept,
        keep=keep,
        lift=lift.matrix,
        root=root,
        clashes=clashes,
        condition=factor.condition,
        rank=factor.rank,
        row_condition=lift.row_condition,
        method=lift.method,
    )


def _group_rows(rows: Tensor) -> list[list[int]]:
    """Indices of rows that coincide, each group in order."""
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    norms = rows.norm(dim=1)
    same = distances <= SAME_ROW * torch.maximum(norms[:, None], norms[None])
    groups: list[list[int]] = []
    seen: set[int] = set()
    for index, row in enumerate(same.tolist()):
        if index not in seen:
            groups.append([other for other, equal in enumerate(row) if equal and other not in seen])
            seen.update(groups[-1])
    return groups


def _clashes(groups: list[list[int]], V: Sequence[Tensor] | None) -> tuple[tuple[int, int], ...]:
    pairs = [(group[0], other) for group in groups for other in group[1:]]
    if V is None:
        return tuple(pairs)
    return tuple(
        (first, other) for first, other in pairs if any(_differ(values[first], values[other]) for values in V)
    )


def _differ(one: Tensor, other: Tensor) -> bool:
    one, other = one.double(), other.double()
    return bool((one - other).norm() > SAME_ROW * torch.maximum(one.norm(), other.norm()))


def _keep_matrix(groups: list[list[int]], num_rows: int, *, first_only: bool, like: Tensor) -> Tensor:
    """(m, s): picks or averages the rows of each group."""
    keep = like.new_zeros(len(groups), num_rows)
    for row, group in enumerate(groups):
        chosen = group[:1] if first_only else group
        keep[row, chosen] = 1 / len(chosen)
    return keep


def _check(W_0: Sequence[Tensor], C: Tensor, V: Sequence[Tensor], C_reg: Tensor) -> None:
    if C.ndim != 2 or C_reg.ndim != 2 or C.shape[1] != C_reg.shape[1] or not len(C_reg):
        raise ShapeError(
            f"target rows {tuple(C.shape)} and regularisation rows {tuple(C_reg.shape)} do not fit together",
            fix="pass (s, d) and (s_reg, d) with the same d and at least one regularisation row",
        )
    if len(W_0) != len(V):
        raise ShapeError(f"{len(W_0)} projections but {len(V)} sets of values", fix="pass one V for each W_0")
    for index, (base, values) in enumerate(zip(W_0, V, strict=True)):
        wanted = (len(C), base.shape[0])
        if base.ndim != 2 or base.shape[1] != C.shape[1] or tuple(values.shape) != wanted:
            raise ShapeError(
                f"projection {index} is {tuple(base.shape)} with values {tuple(values.shape)}",
                fix=f"W_0 is (out, {C.shape[1]}), V is ({len(C)}, out)",
            )
    for name, tensor in {"C": C, "C_reg": C_reg}.items():
        _check_finite(name, tensor)
    for index in range(len(V)):
        _check_finite(f"W_0[{index}]", W_0[index])
        _check_finite(f"V[{index}]", V[index])


def _check_finite(name: str, tensor: Tensor) -> None:
    # a finite sum has finite terms, and costs no copy; a sum that overflows is looked at again
    if not bool(torch.isfinite(tensor.sum())) and not bool(torch.isfinite(tensor).all()):
        raise NonFiniteError(
            f"{name} has NaN or infinite entries",
            fix="the concept's training diverged, or its file is damaged",
        )

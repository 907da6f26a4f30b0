"""The algebra of an edit, on rows and matrices alone, in float64.

For each key or value projection, with weights a of the edited rows and b of the kept ones,
    min_W  sum a |W c - v|^2  +  sum b |(W - W_0) c|^2  +  lamb |W - W_0|^2
(Unified Concept Editing, Eq. 7, with the ridge that both of its codes have): a merge whose regularisation
rows are [sqrt(b) C_keep; sqrt(lamb) I] and whose targets have weights, see `merge.algebra`. The form
"constraint" meets the targets exactly, the limit of large weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from genzoo.core.errors import NonFiniteError, ShapeError, UsageError
from genzoo.families.custom_diffusion.merge.algebra import MergePlan, plan_merge
from genzoo.families.custom_diffusion.merge.factor import Factor, factorise
from genzoo.families.custom_diffusion.merge.lift import MAX_ROW_CONDITION

FORMS = ("ridge", "constraint")


def edit_weights(
    W_0: Sequence[Tensor],
    C: Tensor,
    V: Sequence[Tensor],
    C_keep: Tensor,
    *,
    weights: Tensor | float = 1.0,
    keep_weights: Tensor | float = 1.0,
    lamb: float = 0.5,
    form: str = "ridge",
) -> list[Tensor]:
    """Projections (out, d) float64 that send the rows C (s, d) towards the values V, (s, out) for each W_0.

    C_keep: (p, d) rows whose values should stay.   weights: (s,) or one for all, ridge only.   keep_weights:
    (p,) or one for all.   lamb: weight of the change itself. Raises UsageError, ShapeError, NonFiniteError.
    """
    plan = plan_edit(C, keep_factor(C_keep, keep_weights, lamb), weights=weights, form=form)
    return [plan.solve(base, values).W for base, values in zip(W_0, V, strict=True)]


def keep_factor(C_keep: Tensor, keep_weights: Tensor | float = 1.0, lamb: float = 0.5) -> Factor:
    """The factor of sum b c c^T + lamb I, for any number of edits beside the same kept rows (p, d)."""
    if not (math.isfinite(lamb) and lamb >= 0):
        raise UsageError(f"lamb={lamb} is no weight", fix="0 or more, such as 0.5")
    if C_keep.ndim != 2 or not C_keep.shape[1]:
        raise ShapeError(f"the kept rows are {tuple(C_keep.shape)}", fix="pass (p, d)")
    if not bool(torch.isfinite(C_keep).all()):
        raise NonFiniteError("the kept rows have NaN or infinite entries")
    width = C_keep.shape[1]
    if lamb > 0:
        rows = torch.cat([_scaled(C_keep, keep_weights), lamb**0.5 * torch.eye(width, dtype=torch.float64)])
    else:
        rows = _scaled(C_keep, keep_weights)
    return factorise(rows)


def plan_edit(C: Tensor, factor: Factor, *, weights: Tensor | float = 1.0, form: str = "ridge") -> MergePlan:
    """All of an edit that does not depend on the projection.   C: (s, d).   weights: (s,) or one for all."""
    if form not in FORMS:
        raise UsageError(f"form={form!r} is not known", fix=f"one of {', '.join(FORMS)}")
    nothing = C.new_zeros(1, C.shape[1])  # not looked at: the factor is there
    if form == "ridge":
        given = torch.as_tensor(weights, dtype=torch.float64).expand(len(C))
        if not bool(((given > 0) & torch.isfinite(given)).all()):
            raise UsageError("weights of edits have to be above 0", fix="such as 1")
        return plan_merge(C, nothing, factor=factor, weights=given)
    plan = plan_merge(C, nothing, factor=factor)
    if len(plan.C_kept) > C.shape[1] or plan.row_condition > MAX_ROW_CONDITION:
        raise UsageError(
            f"{len(plan.C_kept)} rows cannot all be held in a width of {C.shape[1]}",
            why=f"their condition number is {plan.row_condition:.3g}",
            fix='form "ridge", or fewer rows (rows "last")',
        )
    return plan


def _scaled(rows: Tensor, weights: Tensor | float) -> Tensor:
    given = torch.as_tensor(weights, dtype=torch.float64).expand(len(rows))
    if not bool(((given >= 0) & torch.isfinite(given)).all()):
        raise UsageError("weights of kept rows have to be 0 or more", fix="such as 1")
    return rows.double() * given.sqrt()[:, None]

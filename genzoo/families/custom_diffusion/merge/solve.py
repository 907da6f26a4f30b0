"""The projections of a merge, one after the other, and what became of each concept in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.merge.inputs import Entry
from genzoo.families.custom_diffusion.merge.rows import GroupPlan


@dataclass(frozen=True)
class Solved:
    """weights: stored dtype.   Sums over projections of squared norms, per concept (and pair of concepts)."""

    weights: dict[str, Tensor]
    residual: list[float]
    missed: Tensor
    needed: Tensor
    own_change: Tensor
    moved: Tensor
    objective: float
    largest_change: float


def solve_merge(
    entries: Sequence[Entry], base: BaseWeights, groups: Sequence[GroupPlan], dtype: torch.dtype
) -> Solved:
    """Merge one projection after the other; besides the results, only one is in memory."""
    num, names = len(entries), base.key_values
    merged, residual, objective, largest = {}, [0.0] * num, 0.0, 0.0
    missed, needed, own = torch.zeros(3, num, dtype=torch.float64)
    moved = torch.zeros(num, num, dtype=torch.float64)
    for group in groups:
        rows, reach = group.rows, [[solo.lift @ other.T for other in group.rows] for solo in group.alone]
        for name in group.names:
            W_0 = base[name].double()
            taught = [entry.delta.full_weight(name, W_0).double() for entry in entries]
            values = [c @ W.T for c, W in zip(rows, taught, strict=True)]
            W, one_objective, _ = group.plan.solve(W_0, torch.cat(values))
            merged[name] = W.to(dtype)
            objective += one_objective**2
            largest = max(largest, float((W - W_0).norm() / W_0.norm()))
            for i, (c, wanted) in enumerate(zip(rows, values, strict=True)):
                gap = merged[name].double() @ c.T - wanted.T
                residual[i] = max(residual[i], float(gap.abs().max()))
                missed[i] += gap.square().sum()
                needed[i] += (wanted.T - W_0 @ c.T).square().sum()
                own[i] += ((taught[i] - W_0).norm() / W_0.norm()) ** 2 / len(names)
            for j, solo in enumerate(group.alone):
                lacking = solo.lacking(W_0, values[j])
                for i in range(num):
                    moved[i, j] += (lacking @ reach[j][i]).square().sum()
    ordered = {name: merged[name] for name in names}
    return Solved(ordered, residual, missed, needed, own.sqrt(), moved, objective**0.5, largest)

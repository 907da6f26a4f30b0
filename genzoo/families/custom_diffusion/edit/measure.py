"""What an edit moves, from a few numbers: every change is W - W_0 = E lift, so that the movement of a row c
over all projections is (lift c)^T (sum E^T E) (lift c), whatever the number of kept rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genzoo.families.custom_diffusion.edit.place import Kept
from genzoo.families.custom_diffusion.edit.report import EditReport, verdict


@dataclass(frozen=True)
class Solved:
    """Projections that see the same rows.   C: (s, d) edited rows.   kept: (p, d).   lift: (s, d).   alone:
    each edit's own lift.   gram: sum E^T E over the projections, (s, s).
    """

    C: Tensor
    kept: Tensor
    lift: Tensor
    alone: list[Tensor]
    gram: Tensor


def movements(lift: Tensor, gram: Tensor, rows: Tensor) -> Tensor:
    """|(W - W_0) c|^2 summed over the projections, (n,).   lift: (s, d).   gram: (s, s).   rows: (n, d)."""
    reach = lift @ rows.T
    return (reach * (gram @ reach)).sum(0).clamp_min(0)


def residual(solved: Sequence[Solved], own: slice) -> float:
    """|W c - v| over |W_0 c - v| of the edited rows `own`."""
    left, needed = torch.zeros(2, dtype=torch.float64)
    for one in solved:
        missing = (one.lift @ one.C.T - torch.eye(len(one.C), dtype=one.C.dtype))[:, own]
        left = left + (missing * (one.gram @ missing)).sum().clamp_min(0)
        needed = needed + one.gram.diagonal()[own].sum()
    return float((left / needed.clamp_min(1e-300)).sqrt())


def reports(
    labels: Sequence[str], spans: Sequence[slice], solved: Sequence[Solved], kept: Kept
) -> list[EditReport]:
    """One for each edit, without the verdict.   spans: its rows in C."""
    caption_moves = _of_captions(sum_of(movements(one.lift, one.gram, one.kept) for one in solved), kept)
    moves = sum_of(movements(one.lift, one.gram, one.C) for one in solved)
    found = []
    for label, own in zip(labels, spans, strict=True):
        moved = moves[own].mean().sqrt()
        shares = caption_moves / moved.clamp_min(1e-300)
        worst = int(shares.argmax()) if len(shares) else -1
        found.append(
            EditReport(
                label=label,
                num_rows=own.stop - own.start,
                residual=residual(solved, own),
                moved=float(moved),
                drift=float(shares.square().mean().sqrt()) if len(shares) else 0.0,
                worst_drift=float(shares[worst]) if len(shares) else 0.0,
                worst_caption=kept.captions[worst] if len(shares) else "",
            )
        )
    return found


def interference(spans: Sequence[slice], solved: Sequence[Solved]) -> list[list[float]]:
    """[i][j]: the movement of edit i's rows by edit j alone, as a share of what i needs."""
    table = []
    for own in spans:
        needed = sum_of(one.gram.diagonal()[own].sum() for one in solved).clamp_min(1e-300)
        moved = [
            sum_of(movements(one.alone[j], one.gram[other, other], one.C[own]).sum() for one in solved)
            for j, other in enumerate(spans)
        ]
        table.append([float((each / needed).sqrt()) for each in moved])
    return table


def sum_of(parts: Iterable[Tensor]) -> Tensor:
    """Of tensors of one shape, one at least."""
    return torch.stack(list(parts)).sum(0)


def with_verdicts(found: Sequence[EditReport], table: Sequence[Sequence[float]]) -> list[EditReport]:
    """The reports with their sentence."""
    done = []
    for i, report in enumerate(found):
        others = [(other.label, table[i][j]) for j, other in enumerate(found) if j != i]
        done.append(dataclasses.replace(report, verdict=verdict(report, others)))
    return done


def _of_captions(moves: Tensor, kept: Kept) -> Tensor:
    """Root mean square over the rows of each caption."""
    means = [moves[span].mean().sqrt() if span else moves.new_zeros(()) for span in kept.spans]
    return torch.stack(means) if means else moves.new_zeros(0)

"""What an edit moves, from a few numbers: every change is W - W_0 = E lift, so that the movement of a row c
over all projections is (lift c)^T (sum E^T E) (lift c), whatever the number of kept rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from genzoo.families.custom_diffusion.edit.report import EditReport, verdict
from genzoo.families.custom_diffusion.edit.rows import Kept


def movements(lift: Tensor, gram: Tensor, rows: Tensor) -> Tensor:
    """|(W - W_0) c|^2 summed over the projections, (n,).   lift: (s, d).   gram: (s, s).   rows: (n, d)."""
    reach = lift @ rows.T
    return (reach * (gram @ reach)).sum(0).clamp_min(0)


def residual(lift: Tensor, gram: Tensor, C: Tensor, own: slice) -> float:
    """|W c - v| over |W_0 c - v| of the rows `own` of C (s, d)."""
    missing = (lift @ C.T - torch.eye(len(C), dtype=C.dtype))[:, own]
    left = (missing * (gram @ missing)).sum()
    return float((left.clamp_min(0) / gram.diagonal()[own].sum().clamp_min(1e-300)).sqrt())


def reports(
    labels: Sequence[str], spans: Sequence[slice], lift: Tensor, gram: Tensor, C: Tensor, kept: Kept
) -> list[EditReport]:
    """One for each edit, without the verdict.   spans: its rows in C."""
    caption_moves = _of_captions(movements(lift, gram, kept.rows), kept)
    moves = movements(lift, gram, C)
    found = []
    for label, own in zip(labels, spans, strict=True):
        moved = moves[own].mean().sqrt()
        shares = caption_moves / moved.clamp_min(1e-300)
        worst = int(shares.argmax()) if len(shares) else -1
        found.append(
            EditReport(
                label=label,
                num_rows=own.stop - own.start,
                residual=residual(lift, gram, C, own),
                moved=float(moved),
                drift=float(shares.square().mean().sqrt()) if len(shares) else 0.0,
                worst_drift=float(shares[worst]) if len(shares) else 0.0,
                worst_caption=kept.captions[worst] if len(shares) else "",
            )
        )
    return found


def interference(
    lifts: Sequence[Tensor], spans: Sequence[slice], gram: Tensor, C: Tensor
) -> list[list[float]]:
    """[i][j]: the movement of edit i's rows by edit j alone, as a share of what i needs."""
    table = []
    for own in spans:
        needed = gram.diagonal()[own].sum().clamp_min(1e-300)
        row = [
            float((movements(lift, gram[other, other], C[own]).sum() / needed).sqrt())
            for lift, other in zip(lifts, spans, strict=True)
        ]
        table.append(row)
    return table


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

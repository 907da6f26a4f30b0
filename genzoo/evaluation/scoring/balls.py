"""Precision, recall, density and coverage, as published first and as published last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from genzoo.evaluation.intervals.estimate import Uncertainty, bare, of_mean, of_share
from genzoo.evaluation.intervals.halves import half_samples, of_halves
from genzoo.evaluation.measures.neighbourhoods import Neighbourhoods, neighbourhoods
from genzoo.evaluation.scoring.rows import Estimates, rows_of, some

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.evaluation.extraction import Features
    from genzoo.evaluation.reference import Reference


def score_precision_recall(
    name: str,
    generated: Features,
    reference: Reference,
    how: Uncertainty | None,
    *,
    k: int = 3,
    reference_num: int | None = None,
) -> Estimates:
    found = _balls(generated.rows["pool"], rows_of(reference, "pool", name, reference_num), k, True, how)
    return {key: found[key] for key in ("precision", "recall")}


def score_prdc(
    name: str,
    generated: Features,
    reference: Reference,
    how: Uncertainty | None,
    *,
    k: int = 5,
    num: int | None = None,
    reference_num: int | None = None,
) -> Estimates:
    return _balls(
        some(generated.rows["pool"], num), rows_of(reference, "pool", name, reference_num), k, False, how
    )


def _balls(rows: Tensor, real: Tensor, k: int, rim: bool, how: Uncertainty | None) -> Estimates:
    device, count = "cuda" if torch.cuda.is_available() else "cpu", len(rows)
    halves = None if how is None or count <= 2 * k else half_samples(count, how.halves, how.seed)
    found = neighbourhoods(rows.to(device), real.to(device), k=k, rim=rim, halves=halves)
    names = ("precision", "recall", "density", "coverage")
    if how is None or found.halves is None:
        return {name: bare(getattr(found, name)) for name in names}
    return _with_intervals(found, found.halves, how)


def _with_intervals(found: Neighbourhoods, halves: tuple[Tensor, Tensor], how: Uncertainty) -> Estimates:
    count, level = len(found.inside), how.level
    return {
        "precision": of_share(found.inside.cpu(), level),
        "recall": of_halves(found.recall, halves[0], count, how, share=True),
        "density": of_mean(found.density, found.counts.cpu().double() / found.k, "mean over samples", level),
        "coverage": of_halves(found.coverage, halves[1], count, how, share=True),
    }

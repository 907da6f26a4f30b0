"""Kernel distances: KID, CMMD and JEDi."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from genzoo.evaluation.intervals.estimate import Uncertainty, bare, of_mean
from genzoo.evaluation.measures.jedi import SCALE as JEDI_SCALE
from genzoo.evaluation.measures.jedi import moment_difference
from genzoo.evaluation.measures.kid import kernel_distance
from genzoo.evaluation.measures.mmd import SCALE, SIGMA, cubic, gaussian, kernel_sums, unit_rows
from genzoo.evaluation.scoring.rows import Estimates, rows_of

if TYPE_CHECKING:
    from genzoo.evaluation.extraction import Features
    from genzoo.evaluation.reference import Reference

U_STATISTIC = "U-statistic"
SUBSETS = "of subsets: no honest interval, kid_all has one"


def score_kid(
    name: str, generated: Features, reference: Reference, how: Uncertainty | None, **options: Any
) -> Estimates:
    result = kernel_distance(generated.rows["pool"], rows_of(reference, "pool", name), **options)
    return {name: bare(result.mean, SUBSETS), f"{name}_std": bare(result.std, "spread over subsets")}


def score_kid_all(
    name: str,
    generated: Features,
    reference: Reference,
    how: Uncertainty | None,
    *,
    reference_num: int | None = None,
) -> Estimates:
    sums = kernel_sums(generated.rows["pool"], rows_of(reference, "pool", name, reference_num), cubic)
    value = sums.unbiased()
    return {name: bare(value) if how is None else of_mean(value, 2 * sums.terms()[0], U_STATISTIC, how.level)}


def score_cmmd(
    name: str,
    generated: Features,
    reference: Reference,
    how: Uncertainty | None,
    *,
    sigma: float = SIGMA,
    scale: float = SCALE,
    reference_num: int | None = None,
) -> Estimates:
    real = unit_rows(rows_of(reference, "pool", name, reference_num).double())
    sums = kernel_sums(unit_rows(generated.rows["pool"].double()), real, gaussian(sigma))
    values = {name: scale * sums.biased(), f"{name}_unbiased": scale * sums.unbiased()}
    if how is None:
        return {key: bare(value) for key, value in values.items()}
    terms = 2 * scale * sums.terms()[0]
    return {key: of_mean(value, terms, U_STATISTIC, how.level) for key, value in values.items()}


def score_jedi(
    name: str,
    generated: Features,
    reference: Reference,
    how: Uncertainty | None,
    *,
    reference_num: int | None = None,
) -> Estimates:
    rows = generated.rows["pool"]
    apart = moment_difference(rows, rows_of(reference, "pool", name, reference_num))
    scale = JEDI_SCALE / len(apart) ** 2
    value = float(scale * apart.square().sum())
    if how is None:
        return {name: bare(value)}
    terms = torch.cat([(part.double() @ apart * part.double()).sum(1) for part in rows.split(1024)])
    return {name: of_mean(value, 2 * scale * terms, "linear term of the moments", how.level)}

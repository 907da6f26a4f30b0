"""The Inception Score, MIND, the Vendi score, and alignment with prompts and photographs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.errors import UsageError
from genzoo.evaluation.intervals.estimate import Estimate, Uncertainty, bare, of_mean
from genzoo.evaluation.intervals.halves import by_halves, half_samples, mind_of_halves, of_halves
from genzoo.evaluation.measures.alignment import image_alignments, text_alignments
from genzoo.evaluation.measures.inception_score import inception_score_adm, inception_score_torch_fidelity
from genzoo.evaluation.measures.mind import mind, mind_floor
from genzoo.evaluation.measures.vendi import vendi_score
from genzoo.evaluation.scoring.rows import Estimates, rows_of, some

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.evaluation.extraction import Features
    from genzoo.evaluation.reference import Reference

VENDI_HALVES = 20  # each takes eigenvalues


def score_inception_score(
    name: str,
    generated: Features,
    reference: Reference,
    how: Uncertainty | None,
    *,
    form: str,
    split_size: int = 5000,
    splits: int = 10,
    seed: int = 2020,
) -> Estimates:
    logits = generated.rows["logits"]
    if form == "adm":
        of_rows = lambda rows: inception_score_adm(rows.double().softmax(1), split_size=split_size)  # noqa: E731
    elif form == "torch-fidelity":
        of_rows = lambda rows: inception_score_torch_fidelity(rows, splits=splits, seed=seed)  # noqa: E731
    else:
        raise UsageError(f"there is no Inception Score form {form!r}; use adm or torch-fidelity")
    result = of_rows(logits)
    usable = how is not None and len(logits) >= 4 * (1 if form == "adm" else splits)
    found = (
        by_halves(logits, lambda rows: of_rows(rows).mean, result.mean, how)
        if how is not None and usable
        else bare(result.mean)
    )
    return {name: found, f"{name}_std": bare(result.std, "spread over splits")}


def score_mind(
    name: str,
    generated: Features,
    reference: Reference,
    how: Uncertainty | None,
    *,
    directions: int = 1000,
    seed: int = 2020,
) -> Estimates:
    rows, real = generated.rows["pool"], rows_of(reference, "pool", name)
    along: dict[str, int] = {"directions": directions, "seed": seed}
    value = mind(rows, real, **along)
    floor = mind_floor(real, num=len(rows), **along)
    found = {name: bare(value), f"{name}_floor": bare(floor, "two parts of the reference")}
    count = min(len(rows), len(real))
    if how is not None and count >= 4:
        halves = half_samples(count, how.halves, how.seed)
        found[name] = of_halves(value, mind_of_halves(rows, real, halves, **along), count, how)
    return found


def score_vendi(
    name: str,
    generated: Features,
    reference: Reference,
    how: Uncertainty | None,
    *,
    num: int | None = None,
    q: float = 1.0,
) -> Estimates:
    rows = some(generated.rows["pool"], num)
    value = vendi_score(rows, q=q)
    if how is None or len(rows) < 4:
        return {name: bare(value)}
    return {name: by_halves(rows, lambda part: vendi_score(part, q=q), value, how, halves=VENDI_HALVES)}


def score_text_alignment(
    name: str, generated: Features, reference: Reference, how: Uncertainty | None, *, scale: float
) -> Estimates:
    return {name: _mean(text_alignments(generated.rows["clip"], generated.rows["text"], scale=scale), how)}


def score_image_alignment(
    name: str, generated: Features, reference: Reference, how: Uncertainty | None, **_: Any
) -> Estimates:
    """Taken for each concept's pictures, whose rows are numbered, then averaged."""
    network = name.removesuffix("_image")
    targets = [rows for key, rows in reference.rows.items() if key.startswith(f"{network}/")]
    values = [image_alignments(generated.rows[network], rows) for rows in targets]
    return {name: _mean(torch.stack(values).mean(0), how)}


def _mean(terms: Tensor, how: Uncertainty | None) -> Estimate:
    value = float(terms.mean())
    return bare(value) if how is None else of_mean(value, terms, "mean over samples", how.level)

"""The Inception Score in the two forms in use, which give different numbers for the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from genzoo.core.errors import DataError, NonFiniteError
from genzoo.core.optional import require

if TYPE_CHECKING:
    from torch import Tensor


class InceptionScore(NamedTuple):
    """Mean and spread over the splits."""

    mean: float
    std: float


def inception_score_adm(probabilities: Tensor, *, split_size: int = 5000) -> InceptionScore:
    """exp(E KL(p(y|x) || p(y))) over consecutive splits of `split_size` rows; the last may be short (ADM).

    probabilities: (n, classes), rows sum to 1; float64 inside.
    """
    if len(probabilities) < 1 or split_size < 1:
        raise DataError(
            f"an Inception Score needs images and a split size, got {len(probabilities)} and {split_size}"
        )
    if not torch.isfinite(probabilities).all():
        raise NonFiniteError("class probabilities hold NaN or infinity")
    scores = torch.stack([_score(part.double()) for part in torch.split(probabilities, split_size)])
    return InceptionScore(float(scores.mean()), float(scores.std(correction=0)))


def _score(p: Tensor) -> Tensor:
    # x log x is 0 at 0: xlogy keeps a confident prediction from becoming NaN
    entropy_terms = torch.xlogy(p, p) - torch.xlogy(p, p.mean(0, keepdim=True))
    return entropy_terms.sum(1).mean().exp()


def inception_score_torch_fidelity(
    logits: Tensor, *, splits: int = 10, shuffle: bool = True, seed: int = 2020
) -> InceptionScore:
    """torch-fidelity's score: a seeded shuffle, then `splits` near-equal parts.   logits: (n, classes)."""
    if len(logits) < splits:
        raise DataError(f"{splits} splits need at least {splits} images, got {len(logits)}")
    if not torch.isfinite(logits).all():
        raise NonFiniteError("class logits hold NaN or infinity")
    metric = require("torch_fidelity.metric_isc", extra="eval")
    result = metric.isc_features_to_metric(logits.cpu(), splits=splits, shuffle=shuffle, rng_seed=seed)
    return InceptionScore(result["inception_score_mean"], result["inception_score_std"])

"""The Vendi score: how many clearly different samples there are, without a reference."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import DataError
from genzoo.evaluation.measures.jedi import second_moment
from genzoo.evaluation.measures.mmd import unit_rows
from genzoo.evaluation.statistics import check_features

if TYPE_CHECKING:
    from torch import Tensor

ROUNDING = 1e-12


def vendi_score(features: Tensor, *, q: float = 1.0) -> float:
    """exp of the Rényi entropy of order q of the eigenvalues of K/n, K the cosines (Friedman and Dieng 2023).

    features: (n, d).   q: 1 is Shannon's entropy, infinity 1 over the largest eigenvalue. Between 1 (all
    alike) and min(n, d). For d < n the eigenvalues are those of X^T X / n: min(n, d)³.
    """
    check_features(features)
    if not len(features) or q <= 0:
        raise DataError(f"a Vendi score needs rows and an order above 0, got {len(features)} and {q}")
    rows = unit_rows(features.double())
    n, d = rows.shape
    return vendi_of_eigenvalues(torch.linalg.eigvalsh(second_moment(rows) if d < n else rows @ rows.T / n), q)


def vendi_of_eigenvalues(eigenvalues: Tensor, q: float = 1.0) -> float:
    """From the eigenvalues of K/n; those below 1e-12 are rounding, which q < 1 would count."""
    kept = eigenvalues[eigenvalues > ROUNDING]
    if math.isinf(q):
        return float(1 / kept.max())
    if q == 1:
        return float((-(kept * kept.log()).sum()).exp())
    return float(kept.pow(q).sum() ** (1 / (1 - q)))

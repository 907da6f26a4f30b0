"""JEDi: polynomial MMD of V-JEPA's features of clips, from second moments alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import DataError, ShapeError
from genzoo.evaluation.statistics import BLOCK, check_features

if TYPE_CHECKING:
    from torch import Tensor

SCALE = 100.0


def jedi(generated: Tensor, reference: Tensor) -> float:
    """100 * biased MMD² under (x.y/d)² = 100 |M_x - M_y|²_F / d², M = X^T X / n, not centred (2410.05203).

    generated: (n, d), reference: (m, d).   Costs (n + m) d²; no n x n matrix. It sees second moments only,
    and at equal distributions its expectation is above 0, so compare at equal n and m.
    """
    difference = moment_difference(generated, reference)
    return float(SCALE * difference.square().sum() / difference.shape[0] ** 2)


def moment_difference(generated: Tensor, reference: Tensor) -> Tensor:
    """(d, d) float64: the second moments of the generated rows less those of the reference."""
    if generated.dim() != 2 or generated.shape[1:] != reference.shape[1:]:
        raise ShapeError(f"features do not fit: {tuple(generated.shape)} and {tuple(reference.shape)}")
    check_features(generated)
    check_features(reference)
    return second_moment(generated) - second_moment(reference)


def second_moment(features: Tensor) -> Tensor:
    """X^T X / n in float64, in blocks; features: (n, d) -> (d, d)."""
    if not len(features):
        raise DataError("there are no features: no clip was read")
    total = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64, device=features.device)
    for part in features.split(BLOCK):
        rows = part.double()
        total.addmm_(rows.T, rows)
    return total / len(features)

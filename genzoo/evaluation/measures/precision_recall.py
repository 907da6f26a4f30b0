"""Improved precision and recall as published (Kynkäänniemi et al. 2019): k = 3, balls with their rim."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from genzoo.evaluation.measures.distances import COLUMNS, ROWS
from genzoo.evaluation.measures.neighbourhoods import neighbourhoods

if TYPE_CHECKING:
    from torch import Tensor


class PrecisionRecall(NamedTuple):
    """precision: share of generated in a reference ball.   recall: share of reference in a generated ball."""

    precision: float
    recall: float


def precision_recall(
    generated: Tensor, reference: Tensor, *, k: int = 3, rows: int = ROWS, columns: int = COLUMNS
) -> PrecisionRecall:
    """Precision and recall from balls that reach to the k-th neighbour, the point itself left out.

    generated: (n, d), reference: (m, d).   Computed in float32, or float64 when given so, on their device.
    Raises DataError when a set has k images or fewer.
    """
    found = neighbourhoods(generated, reference, k=k, rim=True, rows=rows, columns=columns)
    return PrecisionRecall(found.precision, found.recall)

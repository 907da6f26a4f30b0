"""Does a model copy its training images? Distances to them beside those of held-out images.

Only held-out images say how near an honest sample comes; without them a distance accuses nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from genzoo.core.errors import DataError, ShapeError
from genzoo.evaluation.measures.nearest import nearest

if TYPE_CHECKING:
    from torch import Tensor

BELOW = 0.01  # the quantile of held-out distances below which this share of honest samples lies


class Calibrated(NamedTuple):
    """ratio: median distance of samples over that of held-out images; 1 for fresh draws, near 0 for copies.

    below: share of samples nearer than all but 1 % of the held-out images; 0.01 expected.
    """

    ratio: float
    below: float


def calibrated_distance(
    generated: Tensor, training: Tensor, held_out: Tensor, *, quantile: float = BELOW
) -> tuple[Calibrated, Tensor]:
    """Distances to the nearest training image, by the measure of held-out images; and each sample's ratio.

    generated: (n, d), training: (m, d), held_out: (h, d).   Returns the summary and (n,) ratios.
    """
    ours, honest = (nearest(rows, training).distances[:, 0] for rows in (generated, held_out))
    scale = honest.double().median()
    if not scale > 0:
        raise DataError(
            "half of the held-out images lie in the training set too, so no distance can be measured",
            fix="hold out other images",
        )
    limit = honest.double().quantile(quantile)
    ratios = ours.double() / scale
    return Calibrated(float(ratios.median()), float((ours.double() < limit).double().mean())), ratios


def authentic(generated: Tensor, training: Tensor) -> Tensor:
    """(n,) bool: samples farther from their nearest training image than that is from its own (2102.08921).

    100 times the mean is AuthPct: about 70 for fresh draws, and 100 for bad samples far away: a low value
    accuses, a high one proves nothing.
    """
    found = nearest(generated.double(), training.double())
    own = nearest(training.double(), training.double(), k=2).distances[:, 1]
    return own[found.indices[:, 0]] < found.distances[:, 0]


def mann_whitney_z(generated: Tensor, held_out: Tensor) -> float:
    """How much farther from the training images samples lie than held-out images do, in standard deviations.

    generated: (n,), held_out: (h,) distances. Below -3: copying (Meehan et al. 2020).
    """
    n, h = len(generated), len(held_out)
    order = held_out.double().sort().values
    less = torch.searchsorted(order, generated.double())
    ties = torch.searchsorted(order, generated.double(), right=True) - less
    u = float(less.sum() + ties.sum() / 2)
    return float((u - (n * h / 2 - 0.5)) / (n * h * (n + h + 1) / 12) ** 0.5)


def copying_test(
    generated: Tensor,
    training: Tensor,
    held_out: Tensor,
    *,
    cells: tuple[Tensor, Tensor, Tensor] | None = None,
) -> float:
    """C_T: z of `mann_whitney_z` in each cell of the space, weighted by its share of held-out images.

    rows: (n, d), (m, d), (h, d).   cells: a label of each row of the three sets; one cell when left out.
    Cells with 20 samples or fewer are left out. Below -3: copying, above 3: underfitting.
    """
    if cells is None:
        zeros = [torch.zeros(len(rows), dtype=torch.int64) for rows in (generated, training, held_out)]
        cells = (zeros[0], zeros[1], zeros[2])
    if any(len(a) != len(b) for a, b in zip(cells, (generated, training, held_out), strict=True)):
        raise ShapeError("every row of the three sets needs a cell")
    sums, weight = 0.0, 0.0
    for cell in cells[2].unique():
        mine, theirs, unseen = (labels == cell for labels in cells)
        if int(mine.sum()) <= 20 or not bool(theirs.any()):
            continue
        distances = [
            nearest(rows, training[theirs]).distances[:, 0] for rows in (generated[mine], held_out[unseen])
        ]
        share = float(unseen.double().mean())
        sums, weight = sums + share * mann_whitney_z(*distances), weight + share
    if not weight:
        raise DataError("no cell has more than 20 samples beside training and held-out images")
    return sums / weight

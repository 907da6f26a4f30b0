"""Improved precision and recall (Kynkäänniemi et al. 2019) in bounded memory.

Distances are squared and made block by block, so memory is the features plus a few blocks, whatever the
counts: 50,000 x 10,000 at 2,048 dimensions needs 0.5 GB of float32 features, as much for their centred copy,
and about 0.25 GB of blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from genzoo.core.errors import DataError, ShapeError
from genzoo.evaluation.statistics import check_features

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

ROWS, COLUMNS = 1024, 8192


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
    if generated.dim() != 2 or generated.shape[1:] != reference.shape[1:]:
        raise ShapeError(f"features do not fit: {tuple(generated.shape)} and {tuple(reference.shape)}")
    check_features(generated)
    check_features(reference)
    dtype = torch.promote_types(torch.promote_types(generated.dtype, reference.dtype), torch.float32)
    # distances do not move with the origin, and smaller norms cancel less in |a|^2 + |b|^2 - 2ab
    centre = reference.mean(0, dtype=torch.float64).to(dtype)
    generated, reference = (x.to(dtype) - centre for x in (generated, reference))
    blocks = {"rows": rows, "columns": columns}
    reference_radii = squared_radii(reference, k=k, **blocks)
    generated_radii = squared_radii(generated, k=k, **blocks)
    return PrecisionRecall(
        _inside(generated, reference, reference_radii, **blocks).double().mean().item(),
        _inside(reference, generated, generated_radii, **blocks).double().mean().item(),
    )


def squared_radii(points: Tensor, *, k: int = 3, rows: int = ROWS, columns: int = COLUMNS) -> Tensor:
    """Squared distance from each point to its k-th nearest other point; points: (n, d) -> (n,)."""
    if len(points) <= k:
        raise DataError(f"{k} neighbours need more than {k} images, got {len(points)}")
    radii = []
    for part in torch.split(points, rows):
        best = points.new_full((len(part), k + 1), torch.inf)
        for distances, _ in _squared_distances(part, points, columns):
            nearest = distances.topk(min(k + 1, distances.shape[1]), largest=False).values
            best = torch.cat([best, nearest], 1).topk(k + 1, largest=False).values
        radii.append(best.amax(1))  # the k + 1 nearest include the point itself, at distance 0
    return torch.cat(radii)


def _inside(points: Tensor, centres: Tensor, radii: Tensor, *, rows: int, columns: int) -> Tensor:
    """Whether each point lies in at least one ball; (n, d), (m, d), (m,) -> (n,) bool."""
    found = []
    for part in torch.split(points, rows):
        inside = torch.zeros(len(part), dtype=torch.bool, device=points.device)
        for distances, start in _squared_distances(part, centres, columns):
            inside |= (distances <= radii[start : start + columns]).any(1)
        found.append(inside)
    return torch.cat(found)


def _squared_distances(part: Tensor, others: Tensor, columns: int) -> Iterator[tuple[Tensor, int]]:
    """Blocks (r, <= columns) of |a - b|^2 and the index of their first column."""
    part_norms = part.square().sum(1, keepdim=True)
    # what is left of the subtraction below this is rounding, and equal images must be at distance 0 exactly
    floor = 16 * torch.finfo(part.dtype).eps
    for start in range(0, len(others), columns):
        block = others[start : start + columns]
        norms = part_norms + block.square().sum(1)
        distances = torch.addmm(norms, part, block.T, alpha=-2)
        yield distances.masked_fill_(distances <= floor * norms, 0), start

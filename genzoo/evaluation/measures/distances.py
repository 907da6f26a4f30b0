"""Squared distances between rows, exact where rounding would decide, in bounded memory.

They come in float32 from norms and products, block by block; those within 1e-5 of a radius are taken again
in float64 from differences, so that no count depends on the block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import DataError, ShapeError
from genzoo.evaluation.statistics import check_features

if TYPE_CHECKING:
    from torch import Tensor

ROWS, COLUMNS = 1024, 8192
NEAR = 1e-5  # of a radius: there float32 does not decide
PAIRS = 4096  # looked at again at once
LISTS = 32  # of neighbours, in float64 at once
SPARE = 8  # candidates beyond the k-th neighbour, of which float64 finds the k-th


@dataclass(frozen=True)
class Points:
    """Rows as given, and about a centre for products; (n, d) both.   norms: (n,) of the latter, squared."""

    given: Tensor
    shifted: Tensor
    norms: Tensor

    def __len__(self) -> int:
        return len(self.given)

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.given.device

    def parts(self, size: int, *, first: int = 0) -> Iterator[tuple[slice, Points]]:
        """Blocks of rows from `first` on, and where they are."""
        for start in range(first, len(self), size):
            where = slice(start, min(start + size, len(self)))
            yield where, Points(self.given[where], self.shifted[where], self.norms[where])


def centred(generated: Tensor, reference: Tensor) -> tuple[Points, Points]:
    """Both sets about the reference's mean, in float32 or float64. Raises ShapeError, NonFiniteError."""
    if generated.dim() != 2 or generated.shape[1:] != reference.shape[1:]:
        raise ShapeError(f"features do not fit: {tuple(generated.shape)} and {tuple(reference.shape)}")
    check_features(generated)
    check_features(reference)
    dtype = torch.promote_types(torch.promote_types(generated.dtype, reference.dtype), torch.float32)
    # distances do not move with the origin, and smaller norms cancel less in |a|^2 + |b|^2 - 2ab
    sums = torch.stack([part.sum(0, dtype=torch.float64) for part in reference.split(ROWS)])
    centre = (sums.sum(0) / len(reference)).to(dtype)
    return points_about(generated, centre), points_about(reference, centre)


def points_about(rows: Tensor, centre: Tensor) -> Points:
    """Rows (n, d) about a centre (d,), in its dtype."""
    shifted = rows.to(centre.dtype) - centre
    norms = [part.square().sum(1) for part in shifted.split(ROWS)]  # no second copy of all rows
    return Points(rows, shifted, torch.cat(norms))


def squared_radii(points: Tensor, *, k: int, rows: int = ROWS, columns: int = COLUMNS) -> Tensor:
    """Squared distance, float64, from each point to its k-th nearest other point; points: (n, d) -> (n,)."""
    return radii_of(centred(points, points)[0], k=k, rows=rows, columns=columns)


def radii_of(points: Points, *, k: int, rows: int = ROWS, columns: int = COLUMNS) -> Tensor:
    """`squared_radii` of rows that are prepared already."""
    if k < 1 or len(points) <= k:
        raise DataError(f"{k} neighbours need more than {k} images, got {len(points)}")
    _, where = nearest_others(points, min(k + SPARE, len(points) - 1), rows=rows, columns=columns)
    return kth_exact(points, where, k)


def kth_exact(points: Points, where: Tensor, k: int) -> Tensor:
    """(n,) float64: the k-th smallest squared distance of each row to the rows of its list (n, c)."""
    radii = torch.empty(len(points), dtype=torch.float64, device=points.device)
    for own, rows, nearest in zip(
        *(tensor.split(LISTS) for tensor in (radii, points.given, where)), strict=True
    ):
        apart = points.given[nearest].double() - rows.double()[:, None]
        own[:] = apart.square_().sum(2).kthvalue(k).values
    return radii


def nearest_others(
    points: Points, num: int, *, rows: int = ROWS, columns: int = COLUMNS
) -> tuple[Tensor, Tensor]:
    """(n, num) squared distances, ascending up to rounding, and indices of each row's nearest other rows.

    Every pair is looked at once, for both of its rows: the blocks above the diagonal serve those below.
    """
    best = points.shifted.new_full((len(points), num), torch.inf)
    where = torch.zeros_like(best, dtype=torch.int64)
    for mine, part in points.parts(rows):
        own = torch.arange(mine.start, mine.stop, device=points.device)
        for theirs, others in points.parts(columns, first=mine.start):
            distances, _ = squared_distances(part, others)
            here = (own >= theirs.start) & (own < theirs.stop)
            distances[here, own[here] - theirs.start] = torch.inf  # a row is no neighbour of its own
            _keep_nearest(best, where, mine, distances, theirs.start)
            later = slice(max(theirs.start, mine.stop), theirs.stop)
            if later.start < later.stop:
                turned = distances[:, later.start - theirs.start :].T.contiguous()
                _keep_nearest(best, where, later, turned, mine.start)
    return best, where


def _keep_nearest(best: Tensor, where: Tensor, mine: slice, distances: Tensor, first: int) -> None:
    """Of the nearest so far and of new distances (r, c), whose columns begin at row `first`, the nearest."""
    values, index = distances.topk(min(best.shape[1], distances.shape[1]), largest=False)
    kept, order = torch.cat([best[mine], values], 1).topk(best.shape[1], largest=False)
    best[mine], where[mine] = kept, torch.cat([where[mine], index + first], 1).gather(1, order)


def squared_distances(part: Points, others: Points) -> tuple[Tensor, Tensor]:
    """(r, c) |a - b|², 0 for equal rows, and how far rounding may have moved each."""
    norms = part.norms[:, None] + others.norms
    distances = torch.addmm(norms, part.shifted, others.shifted.T, alpha=-2)
    rounding = norms.mul_(16 * torch.finfo(norms.dtype).eps)
    return distances.masked_fill_(distances <= rounding, 0), rounding


def within(
    distances: Tensor, radii: Tensor, part: Points, others: Points, rounding: Tensor, rim: bool
) -> Tensor:
    """Which pairs are nearer than a radius; (r, c) squared, radii (1, c) or (r, 1) float64 -> (r, c) bool."""
    apart = distances - radii.to(distances.dtype)
    unsure = (apart.abs() <= torch.maximum(rounding, 2 * NEAR * radii.to(distances.dtype))).nonzero()
    held = apart < 0
    for pairs in unsure.split(PAIRS):
        row, column = pairs.T
        exact = (part.given[row].double() - others.given[column].double()).square().sum(1)
        limit = radii.expand(distances.shape)[row, column]
        held[row, column] = (exact <= limit) if rim else (exact < limit)
    return held

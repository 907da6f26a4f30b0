"""Precision, recall, density and coverage from balls around rows, all four in one pass and in bounded memory.

Kynkäänniemi et al. 2019 (precision, recall: k = 3, a ball with its rim) and Naeem et al. 2020 (density,
coverage: k = 5, a ball without it). Distances come in float32 from norms and products, block by block; those
within 1e-5 of a radius are taken again in float64 from differences, so that no count depends on the block.
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
LISTED = 16  # times k neighbours of each generated row, for half-samples
LISTS = 32  # of neighbours, in float64 at once
SPARE = 8  # candidates beyond the k-th neighbour, of which float64 finds the k-th


@dataclass(frozen=True)
class Neighbourhoods:
    """For every row which balls hold it.

    inside: (n,) of generated rows, in some reference ball.   counts: (n,) in how many.   covered: (m,) of
    reference rows, whose ball holds a generated row.   recalled: (m,) in some generated ball.   k: the
    neighbour that a ball reaches to.   halves: the recall and the coverage of half-samples, (halves,) each.
    """

    inside: Tensor
    counts: Tensor
    covered: Tensor
    recalled: Tensor
    k: int
    halves: tuple[Tensor, Tensor] | None = None

    @property
    def precision(self) -> float:
        """Share of generated rows in a reference ball."""
        return float(self.inside.double().mean())

    @property
    def recall(self) -> float:
        """Share of reference rows in a generated ball."""
        return float(self.recalled.double().mean())

    @property
    def density(self) -> float:
        """Reference balls around a generated row, over k; 1 for fresh draws."""
        return float(self.counts.double().mean() / self.k)

    @property
    def coverage(self) -> float:
        """Share of reference balls with a generated row in them; about 1 - 2^-k for fresh draws, n = m."""
        return float(self.covered.double().mean())


def neighbourhoods(
    generated: Tensor,
    reference: Tensor,
    *,
    k: int = 5,
    rim: bool = False,
    halves: Tensor | None = None,
    rows: int = ROWS,
    columns: int = COLUMNS,
) -> Neighbourhoods:
    """Balls to the k-th other row around every row of both sets, and which hold rows of the other set.

    generated: (n, d), reference: (m, d), on one device.   rim: whether a row at the radius itself is inside;
    an exact copy of a row with k twins is inside only with it.   halves: (h, n) bool, half-samples of the
    generated rows to judge as well, from the same distances. Raises DataError for k rows or fewer.
    """
    x, y = centred(generated, reference)
    blocks = {"rows": rows, "columns": columns}
    around_y = radii_of(y, k=k, **blocks)
    around_x, parts = _generated_radii(x, len(y), k, halves, blocks)
    inside, recalled = (torch.zeros(len(points), dtype=torch.bool, device=x.device) for points in (x, y))
    counts, covered = torch.zeros(len(x), dtype=torch.int64, device=x.device), torch.zeros_like(recalled)
    for mine, part in x.parts(rows):
        for theirs, others in y.parts(columns):
            distances, rounding = squared_distances(part, others)
            if parts is not None:
                parts.add(mine, theirs, distances, around_y)
            held = _within(distances, around_y[theirs][None], part, others, rounding, rim)
            counts[mine] += held.sum(1)
            covered[theirs] |= held.any(0)
            recalled[theirs] |= _within(distances, around_x[mine][:, None], part, others, rounding, rim).any(
                0
            )
        inside[mine] = counts[mine] > 0
    halved = None if parts is None else parts.shares()
    return Neighbourhoods(inside, counts, covered, recalled, k, halved)


def _generated_radii(
    x: Points, others: int, k: int, halves: Tensor | None, blocks: dict[str, int]
) -> tuple[Tensor, HalfBalls | None]:
    """The radii around generated rows; for half-samples too, from one longer list of neighbours."""
    if halves is None:
        return radii_of(x, k=k, **blocks), None
    if len(x) <= 2 * k:
        raise DataError(f"half-samples and {k} neighbours need more than {2 * k} images, got {len(x)}")
    distances, where = nearest_others(x, min(LISTED * k + SPARE, len(x) - 1), **blocks)
    return _kth_exact(x, where[:, : k + SPARE], k), HalfBalls(
        halves.to(x.device), others, distances, where, k
    )


class HalfBalls:
    """Recall and coverage of half-samples; float32 decides, because only their spread is looked at.

    A ball of a half reaches to the k-th of its own neighbours: 16 k neighbours hold so many of every half.
    """

    def __init__(self, halves: Tensor, others: int, distances: Tensor, where: Tensor, k: int) -> None:
        self.halves, self.radii = halves, torch.full(halves.shape, -1.0, dtype=distances.dtype)
        self.radii = self.radii.to(halves.device)
        for half, radii in zip(halves, self.radii, strict=True):
            seen = half[where].cumsum(1)
            place = (seen < k).sum(1).clamp_max(where.shape[1] - 1)
            radii[half] = distances.gather(1, place[:, None])[half, 0]
        self.covered, self.recalled = (
            torch.zeros(len(halves), others, dtype=torch.bool, device=halves.device) for _ in range(2)
        )

    def add(self, mine: slice, theirs: slice, distances: Tensor, around_y: Tensor) -> None:
        """One block of squared distances: rows `mine` of the generated, columns `theirs` of the reference."""
        members, radii = self.halves[:, mine], self.radii[:, mine]
        for row, column in _pairs(distances < around_y[theirs].to(distances.dtype)):
            _mark(self.covered, members[:, row], theirs.start + column)
        for row, column in _pairs(distances <= radii.amax(0)[:, None]):  # few: a ball holds a few neighbours
            _mark(self.recalled, distances[row, column] <= radii[:, row], theirs.start + column)

    def shares(self) -> tuple[Tensor, Tensor]:
        """(halves,) recall and (halves,) coverage."""
        return self.recalled.double().mean(1).cpu(), self.covered.double().mean(1).cpu()


def _pairs(held: Tensor) -> Iterator[Tensor]:
    """Rows and columns of what is true, (2, some) at a time."""
    return (pairs.T for pairs in held.nonzero().split(PAIRS))


def _mark(found: Tensor, hits: Tensor, columns: Tensor) -> None:
    """found: (h, m).   hits: (h, pairs), of pairs in these columns."""
    half, pair = hits.nonzero().T
    found[half, columns[pair]] = True


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
    return _kth_exact(points, where, k)


def _kth_exact(points: Points, where: Tensor, k: int) -> Tensor:
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


def _within(
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

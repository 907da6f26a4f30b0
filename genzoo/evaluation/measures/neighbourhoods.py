"""Precision, recall, density and coverage from balls around rows, all four in one pass and in bounded memory.

Kynkäänniemi et al. 2019 (precision, recall: k = 3, a ball with its rim) and Naeem et al. 2020 (density,
coverage: k = 5, a ball without it).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import DataError
from genzoo.evaluation.measures.distances import (
    COLUMNS,
    PAIRS,
    ROWS,
    SPARE,
    Points,
    centred,
    kth_exact,
    nearest_others,
    radii_of,
    squared_distances,
    within,
)

if TYPE_CHECKING:
    from torch import Tensor

LISTED = 16  # times k neighbours of each generated row, for half-samples


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
            held = within(distances, around_y[theirs][None], part, others, rounding, rim)
            counts[mine] += held.sum(1)
            covered[theirs] |= held.any(0)
            recalled[theirs] |= within(distances, around_x[mine][:, None], part, others, rounding, rim).any(0)
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
    return kth_exact(x, where[:, : k + SPARE], k), HalfBalls(halves.to(x.device), others, distances, where, k)


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

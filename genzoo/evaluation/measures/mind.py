"""MIND: the sliced Wasserstein distance of features, which sees more than their first two moments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import DataError, ShapeError
from genzoo.evaluation.statistics import check_features

if TYPE_CHECKING:
    from torch import Tensor

DIRECTIONS, SEED, AT_ONCE = 1000, 2020, 64


def mind(generated: Tensor, reference: Tensor, *, directions: int = DIRECTIONS, seed: int = SEED) -> float:
    """3 d * mean over unit directions u of mean over i of (sort(X u)_i - sort(Y u)_i)², no root (2605.06797).

    generated: (n, d), reference: (m, d); the larger set is first cut to the smaller at random.   Costs
    directions * (n d + n log n). A shift by delta gives 3 |delta|² on average. Fresh draws of the reference
    do not score 0: always read it beside `mind_floor`.
    """
    x, y, chosen = prepared(generated, reference, directions=directions, seed=seed)
    total = sum((a - b).square().mean(0).sum() for a, b in _sorted_projections(x, y, chosen))
    return float(3 * x.shape[1] * total / directions)


def prepared(
    generated: Tensor, reference: Tensor, *, directions: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Both sets cut to one size, and (directions, d) unit rows; drawn in this order from one generator."""
    if generated.dim() != 2 or generated.shape[1:] != reference.shape[1:]:
        raise ShapeError(f"features do not fit: {tuple(generated.shape)} and {tuple(reference.shape)}")
    if directions < 1:
        raise DataError(f"MIND needs directions to look along, got {directions}")
    check_features(generated)
    check_features(reference)
    random = torch.Generator().manual_seed(seed)
    size = min(len(generated), len(reference))
    x, y = (_cut(rows, size, random) for rows in (generated, reference))
    drawn = torch.randn(directions, generated.shape[1], generator=random).double()
    return x, y, (drawn / drawn.norm(dim=1, keepdim=True)).to(generated.device)


def _cut(rows: Tensor, size: int, random: torch.Generator) -> Tensor:
    if len(rows) == size:
        return rows
    return rows[torch.randperm(len(rows), generator=random)[:size].to(rows.device)]


def _sorted_projections(x: Tensor, y: Tensor, directions: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(n, some directions) of both sets, sorted along each direction; float64."""
    x, y = x.double(), y.double()
    for part in directions.double().split(AT_ONCE):
        yield (x @ part.T).sort(0).values, (y @ part.T).sort(0).values


def mind_floor(
    reference: Tensor, *, num: int | None = None, directions: int = DIRECTIONS, seed: int = SEED
) -> float:
    """MIND of two parts of the reference without a common row: what a perfect model of so many would score.

    num: rows of each part, at most half of the reference, and that when left out.
    """
    order = torch.randperm(len(reference), generator=torch.Generator().manual_seed(seed))
    size = min(num or len(reference), len(reference) // 2)
    one, other = (reference[part.to(reference.device)] for part in (order[:size], order[size : 2 * size]))
    return mind(one, other, directions=directions, seed=seed)

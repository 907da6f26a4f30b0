"""Half-samples without replacement: an interval for any measure, from its spread over halves of the samples.

A half drawn without replacement has the variance of the whole, sigma²/n, and no row twice. The centre is the
value of all samples, not the mean of the halves: those have the bias of n/2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import DataError
from genzoo.evaluation.intervals.estimate import Estimate, Uncertainty, normal
from genzoo.evaluation.measures.mind import AT_ONCE, prepared

if TYPE_CHECKING:
    from torch import Tensor


def half_samples(count: int, halves: int, seed: int) -> Tensor:
    """(halves, count) bool: which rows each half holds, count // 2 of them."""
    if count < 4:
        raise DataError(f"half-samples need at least 4 samples, got {count}")
    random = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(halves, count, dtype=torch.bool)
    for row in chosen:
        row[torch.randperm(count, generator=random)[: count // 2]] = True
    return chosen


def of_halves(
    value: float, values: Sequence[float] | Tensor, count: int, how: Uncertainty, *, share: bool = False
) -> Estimate:
    """The interval of a value of `count` samples from those of their halves.   share: it stays in [0, 1]."""
    found = torch.as_tensor(values, dtype=torch.float64)
    half = count // 2
    scale = (1 / count / (1 / half - 1 / count)) ** 0.5  # 1 for an even count
    method = f"half-samples, {len(found)}"
    made = normal(value, scale * float(found.std(correction=1)), method, how.level, seed=how.seed)
    if not share:
        return made
    return replace(made, low=max(made.low or 0.0, 0.0), high=min(made.high or 0.0, 1.0))


def by_halves(
    rows: Tensor,
    measure: Callable[[Tensor], float],
    value: float,
    how: Uncertainty,
    *,
    halves: int | None = None,
) -> Estimate:
    """The interval of a measure that is simply taken again for each half; rows: (n, ...)."""
    chosen = half_samples(len(rows), halves or how.halves, how.seed)
    return of_halves(value, [measure(rows[half]) for half in chosen], len(rows), how)


def mind_of_halves(
    generated: Tensor, reference: Tensor, chosen: Tensor, *, directions: int, seed: int
) -> Tensor:
    """(halves,) MIND of each half of the generated rows against one half of the reference; sorted only once.

    chosen: (halves, n) bool, of as many rows as the smaller set has.
    """
    x, y, along = prepared(generated, reference, directions=directions, seed=seed)
    kept = half_samples(len(y), 1, seed)[0]
    totals = torch.zeros(len(chosen), dtype=torch.float64)
    for part in along.split(AT_ONCE):
        ordered, order = (x.double() @ part.T).sort(0)
        theirs, places = (y.double() @ part.T).sort(0)
        real = _members(theirs, places, kept)
        for number, half in enumerate(chosen):
            totals[number] += (_members(ordered, order, half) - real).square().mean(1).sum()
    return 3 * x.shape[1] * totals / directions


def _members(ordered: Tensor, order: Tensor, half: Tensor) -> Tensor:
    """(directions, n // 2): of sorted columns the values of the rows in a half, still sorted."""
    return ordered.T[half[order].T].view(ordered.shape[1], -1)

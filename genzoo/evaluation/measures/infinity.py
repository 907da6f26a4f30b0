"""What a biased score tends to as the number of samples grows, by the published line in 1/n.

The line is a poor estimator when dimensions are many beside the samples (at d/n = 0.16 it was off by 0.81 on
1.06): it is here for parity. `intervals/groups.py` has the better one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from genzoo.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

POINTS, FROM, SEED = 15, 5000, 0


def sizes_of_line(count: int, *, smallest: int | None = None, points: int = POINTS) -> list[int]:
    """Sizes at even steps from `smallest` (5,000, or a tenth of fewer) to all; dgm-eval's when left out."""
    first = min(FROM, max(count // 10, 2)) if smallest is None else smallest
    if not 2 <= first <= count:
        raise DataError(f"a line from {first} samples needs at least as many, got {count}")
    return np.linspace(first, count, points).astype(int).tolist()


def value_at_infinity(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The least-squares line of the values in 1/size, at 0 (Chong and Forsyth 2020)."""
    slope_and_value = np.polyfit(1 / np.asarray(sizes, dtype=np.float64), np.asarray(values), 1)
    return float(slope_and_value[1])


def infinity_by_line(
    rows: Tensor,
    measure: Callable[[Tensor], float],
    *,
    sizes: Sequence[int] | None = None,
    subsets: Sequence[Tensor] | None = None,
    seed: int = SEED,
) -> float:
    """A score of subsets of unlike size, drawn afresh without replacement, taken to infinity by the line.

    rows: (n, d).   measure: of rows.   subsets: (size,) indices, when they are drawn elsewhere.
    """
    if subsets is None:
        random = np.random.default_rng(seed)
        chosen = sizes or sizes_of_line(len(rows))
        subsets = [torch.from_numpy(random.choice(len(rows), size, replace=False)) for size in chosen]
    values = [measure(rows[subset]) for subset in subsets]
    return value_at_infinity([len(subset) for subset in subsets], values)

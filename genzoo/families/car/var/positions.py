"""Positions of a VAR on maps of other shapes: each scale's grid is resized, and fine-tuning does the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

Size = tuple[int, int]


def resized_positions(table: Tensor, source: Sequence[Size], target: Sequence[Size]) -> Tensor:
    """A learned table (1, l, d) of maps `source` as one of maps `target`, scale by scale.

    Bilinear between centres of cells, without antialiasing, in float64. Nobody has published how well a VAR
    does on it: such a model is to be trained on.
    """
    parts = table.double().split([height * width for height, width in source], dim=1)
    grids = [part.movedim(1, 2).unflatten(2, size) for part, size in zip(parts, source, strict=True)]
    resized = [
        grid if grid.shape[2:] == size else interpolate(grid, size=size, mode="bilinear", align_corners=False)
        for grid, size in zip(grids, target, strict=True)
    ]
    return torch.cat([grid.flatten(2).movedim(2, 1) for grid in resized], dim=1).to(table.dtype)


def square_sides(scale_of_token: Tensor | None) -> list[Size] | None:
    """Sizes of the maps, from the scale of every token; None where they are no squares, or not known."""
    if scale_of_token is None:
        return None
    counts = scale_of_token.flatten().bincount().tolist()
    sides = [math.isqrt(count) for count in counts]
    return [(side, side) for side in sides] if [side**2 for side in sides] == counts else None

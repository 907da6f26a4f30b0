"""Samples beside the pictures that they were to follow, such as controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genzoo.pictures.grid import Grid, make_grid
from genzoo.pictures.pixels import nearest_levels


def grid_beside(
    images: Tensor,
    conditions: Mapping[str, Any],
    *,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
) -> Grid:
    """A grid of samples that begins with the pictures they were to follow: one for all, or one for each.

    images: (n, c, h, w) uint8.   conditions: of these samples; those that are pictures (n, c, h, w) in
    [-1, 1] are shown.   captions: of the samples; the others have the names of their conditions.
    """
    followed = {name: shown for name, rows in conditions.items() for shown in _pictures(rows, images)}
    if not followed:
        return make_grid(images, columns=columns, captions=captions)
    titles = [name for name, rows in followed.items() for _ in rows]
    titles += captions if captions is not None else [""] * len(images)
    return make_grid(torch.cat([*followed.values(), images]), columns=columns, captions=titles)


def _pictures(rows: Any, images: Tensor) -> list[Tensor]:
    """The rows as pictures, a single one where all are alike; nothing for what has not the images' shape."""
    if not isinstance(rows, Tensor) or rows.dtype != torch.float32 or rows.shape != images.shape:
        return []
    levels = nearest_levels(rows).to(torch.uint8)
    return [levels[:1] if bool((levels == levels[:1]).all()) else levels]

"""Items to batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import DataError


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tensors are stacked, numbers become tensors, all else a list; the items must have the same keys."""
    keys = items[0].keys()
    for item in items:
        if item.keys() != keys:
            raise DataError(f"items of one batch differ in keys: {sorted(keys)} and {sorted(item)}")
    return {key: _join(key, [item[key] for item in items]) for key in keys}


def _join(key: str, values: list[Any]) -> Any:
    if isinstance(values[0], Tensor):
        shapes = {tuple(value.shape) for value in values}
        if len(shapes) > 1:
            raise DataError(
                f"{key!r} has different shapes in one batch: {', '.join(map(str, sorted(shapes)))}"
            )
        return torch.stack(values)
    if isinstance(values[0], (bool, int, float)):
        return torch.tensor(values)
    return values

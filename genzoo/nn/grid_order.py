"""In which order the tokens of a picture are scanned: rows, columns, and both as a snake; each also reversed.

    sequence[k] = tokens[order[k]],   tokens = sequence[inverse]       tokens row-major

A mixer that scans both ways sees an order and its reverse: `rows` and `columns` in turn are four directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genzoo.core.errors import UsageError, did_you_mean

REVERSED = "_reversed"
PLAIN = ("rows", "columns", "snake_rows", "snake_columns")
GRID_ORDERS = (*PLAIN, *(f"{name}{REVERSED}" for name in PLAIN))


def grid_order(height: int, width: int, name: str) -> Tensor:
    """Positions of a row-major grid in the order of their scan: (height*width,) int64."""
    if name not in GRID_ORDERS:
        hint = did_you_mean(name, GRID_ORDERS) or f"choose from {', '.join(GRID_ORDERS)}"
        raise UsageError(f"there is no order of scanning a picture {name!r}", fix=hint)
    plain = name.removesuffix(REVERSED)
    grid = torch.arange(height * width).view(height, width)
    lines = grid if plain.endswith("rows") else grid.T
    if plain.startswith("snake"):
        lines = lines.clone()
        lines[1::2] = lines[1::2].flip(1)
    order = lines.flatten()
    return order.flip(0) if name.endswith(REVERSED) else order


def inverse_order(order: Tensor) -> Tensor:
    """Where each position stands in the sequence.   order: (n,), a permutation."""
    return order.argsort()


def orders_of_blocks(names: Sequence[str] | str, depth: int) -> list[str]:
    """The order of each block: one for all, or several in turn. Raises UsageError for none."""
    listed = [names] if isinstance(names, str) else list(names)
    if not listed:
        raise UsageError("scan_orders is empty", fix="leave it out for rows")
    return [listed[index % len(listed)] for index in range(depth)]


class GridOrder(nn.Module):
    """Puts the tokens of a grid into an order and back; tokens in front of the grid stay where they are."""

    order: Tensor
    inverse: Tensor

    def __init__(self, grid: tuple[int, int], name: str) -> None:
        super().__init__()
        order = grid_order(*grid, name)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("inverse", inverse_order(order), persistent=False)

    def there(self, tokens: Tensor, kept: Tensor | None = None) -> Tensor:
        """tokens: (b, f + n, d), f in front, row-major.   kept: (b, n), ascending places of those left."""
        return _picked(tokens, self.order[None] if kept is None else self.inverse[kept].argsort(1))

    def back(self, tokens: Tensor, kept: Tensor | None = None) -> Tensor:
        """Undo `there`."""
        # the rank of each kept place among them; argsort twice is the inverse of argsort
        if kept is None:
            return _picked(tokens, self.inverse[None])
        return _picked(tokens, self.inverse[kept].argsort(1).argsort(1))


def _picked(tokens: Tensor, index: Tensor) -> Tensor:
    """Tokens by their places behind those in front.   index: (b, n), or (1, n) for all samples."""
    front, rest = tokens[:, : -index.shape[1]], tokens[:, -index.shape[1] :]
    if len(index) == 1:
        rest = rest[:, index[0]]
    else:
        rest = rest.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))
    return torch.cat([front, rest], dim=1) if front.shape[1] else rest

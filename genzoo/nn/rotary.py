"""Rotary positions of a picture (RoPE in two dimensions), laid out as LightningDiT stores them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genzoo.core.errors import ShapeError


class GridRotation(nn.Module):
    """Angles for queries and keys: half of each head turns by the row, half by the column.

    Frequencies 10000^(-2k / (d_head/2)), each for a pair of neighbouring channels. The tables
    freqs_cos and freqs_sin, (l, d_head) float32, are part of the state dict, as released files have them.
    """

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, head_dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        if head_dim % 4:
            raise ShapeError(
                f"rotary positions need heads whose width is a multiple of 4, not {head_dim}",
                fix="choose another hidden_size or num_heads, or rope=False",
            )
        k = torch.arange(head_dim // 4, dtype=torch.float64)
        frequencies = 10000.0 ** (-2 * k / (head_dim // 2))
        rows, columns = torch.meshgrid(*(torch.arange(side).double() for side in grid), indexing="ij")
        angles = [
            torch.outer(axis.flatten(), frequencies).repeat_interleave(2, 1) for axis in (rows, columns)
        ]
        table = torch.cat(angles, dim=1)
        self.register_buffer("freqs_cos", table.cos().float())
        self.register_buffer("freqs_sin", table.sin().float())

    def forward(self, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cosines and sines of all tokens, (l, d_head); of the places `kept`, (b, l), (b, 1, l, d_head)."""
        if kept is None:
            return self.freqs_cos, self.freqs_sin
        return self.freqs_cos[kept][:, None], self.freqs_sin[kept][:, None]


def rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """(x_0 cos - x_1 sin, x_1 cos + x_0 sin) of neighbouring channels x_0, x_1.   x: (b, h, l, d_head)."""
    cos, sin = tables
    turned = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
    return (x * cos + turned * sin).to(x.dtype)

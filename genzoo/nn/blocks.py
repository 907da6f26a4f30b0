"""Residual blocks with adaLN-Zero: the same shell around attention (DiT) or a Mamba mixer (DiM).

x <- x + gate_1 mixer(modulate(norm(x))),   x <- x + gate_2 mlp(modulate(norm(x))),   six modulations from c.
A fresh block is the identity, because its modulation starts at zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genzoo.nn.attention import Attention
from genzoo.nn.mamba import MambaMixer
from genzoo.nn.modulation import (
    Mlp,
    adaln_modulation,
    gated_add,
    gated_add_then_norm,
    modulated_norm,
    plain_norm,
    shared_rows,
)


class AttentionBlock(nn.Module):
    """DiT block: self-attention and a perceptron."""

    def __init__(self, hidden_size: int, num_heads: int, *, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = plain_norm(hidden_size)
        self.attn = Attention(hidden_size, num_heads)
        self.norm2 = plain_norm(hidden_size)
        self.mlp = Mlp(hidden_size, mlp_ratio=mlp_ratio)
        self.adaLN_modulation = adaln_modulation(hidden_size, 6)
        xavier_linears(self.attn, self.mlp)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x: (b, l, d).   c: (b, d), or a row for several consecutive ones.   Returns (b, l, d)."""
        modulation = shared_rows(self.adaLN_modulation(c), x)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation.chunk(6, dim=1)
        mixed = self.attn(modulated_norm(self.norm1, x, shift_1, scale_1))
        x, normed = gated_add_then_norm(self.norm2, x, gate_1, mixed, shift_2, scale_2)
        return gated_add(x, gate_2, self.mlp(normed))


class MambaBlock(nn.Module):
    """DiM block (section 3.3): a bidirectional Mamba mixer and a perceptron. Options go to the mixer."""

    def __init__(self, hidden_size: int, *, mlp_ratio: float = 4.0, **mixer_options: Any) -> None:
        super().__init__()
        self.norm1 = plain_norm(hidden_size)
        self.mixer = MambaMixer(hidden_size, **mixer_options)
        self.norm2 = plain_norm(hidden_size)
        self.mlp = Mlp(hidden_size, mlp_ratio=mlp_ratio)
        self.adaLN_modulation = adaln_modulation(hidden_size, 6)
        # not the mixer: its initial step sizes would be lost
        xavier_linears(self.mlp)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x: (b, l, d).   c: (b, d), or a row for several consecutive ones.   Returns (b, l, d)."""
        modulation = shared_rows(self.adaLN_modulation(c), x)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation.chunk(6, dim=1)
        mixed = self.mixer(modulated_norm(self.norm1, x, shift_1, scale_1))
        x, normed = gated_add_then_norm(self.norm2, x, gate_1, mixed, shift_2, scale_2)
        return gated_add(x, gate_2, self.mlp(normed))


def xavier_linears(*modules: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every Linear inside, as in DiT."""
    for layer in (inner for module in modules for inner in module.modules() if isinstance(inner, nn.Linear)):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def run_blocks(
    blocks: Iterable[nn.Module], x: Tensor, c: Tensor, *, gradient_checkpointing: bool = False
) -> Tensor:
    """Apply the blocks in turn; with gradient_checkpointing each is computed again in the backward pass.

    x: (b, l, d).   c: (b, d).   Returns (b, l, d).
    """
    recompute = gradient_checkpointing and torch.is_grad_enabled()
    for block in blocks:
        x = checkpoint(block, x, c, use_reentrant=False) if recompute else block(x, c)
    return x

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
from genzoo.nn.casting import cast_together
from genzoo.nn.depthwise import DepthwiseConv2d
from genzoo.nn.mamba import MambaMixer
from genzoo.nn.modulation import (
    Mlp,
    SwiGlu,
    adaln_modulation,
    block_norm,
    gated_add,
    gated_add_then_norm,
    norm_and_pass,
    plain_norm,
    shared_rows,
)


class AttentionBlock(nn.Module):
    """DiT block: self-attention and a perceptron. The options are LightningDiT's.

    qk_norm, rms_norm: see `Attention`; rms_norm also replaces the block's own norms.   swiglu: the gated
    perceptron.   modulation_shift=False: four modulations in place of six, scales and gates alone.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        rms_norm: bool = False,
        swiglu: bool = False,
        modulation_shift: bool = True,
    ) -> None:
        super().__init__()
        self.norm1 = block_norm(hidden_size, rms_norm=rms_norm)
        self.attn = Attention(hidden_size, num_heads, qk_norm=qk_norm, rms_norm=rms_norm)
        self.norm2 = block_norm(hidden_size, rms_norm=rms_norm)
        self.mlp: nn.Module = (SwiGlu if swiglu else Mlp)(hidden_size, mlp_ratio=mlp_ratio)
        self.modulation_shift = modulation_shift
        self.adaLN_modulation = adaln_modulation(hidden_size, 6 if modulation_shift else 4)
        xavier_linears(self.attn, self.mlp)

    @cast_together
    def forward(self, x: Tensor, c: Tensor, *, rotation: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """x: (b, l, d).   c: (b, d), or a row for several consecutive ones.   Returns (b, l, d).

        rotation: tables of `GridRotation` for these tokens.
        """
        modulation = shared_rows(self.adaLN_modulation(c), x)
        if self.modulation_shift:
            shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation.chunk(6, dim=1)
        else:
            scale_1, gate_1, scale_2, gate_2 = modulation.chunk(4, dim=1)
            shift_1 = shift_2 = torch.zeros_like(scale_1)
        normed, x = norm_and_pass(self.norm1, x, shift_1, scale_1)
        mixed = self.attn(normed, rotation)
        x, normed = gated_add_then_norm(self.norm2, x, gate_1, mixed, shift_2, scale_2)
        return gated_add(x, gate_2, self.mlp(normed))


class MambaBlock(nn.Module):
    """DiM block (section 3.3): a bidirectional Mamba mixer and a perceptron. Options go to the mixer.

    conv_grid: height and width of the tokens, over which a `DepthwiseConv2d` follows the block; None: none.
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        mlp_ratio: float = 4.0,
        conv_grid: tuple[int, int] | None = None,
        **mixer_options: Any,
    ) -> None:
        super().__init__()
        self.norm1 = plain_norm(hidden_size)
        self.mixer = MambaMixer(hidden_size, **mixer_options)
        self.norm2 = plain_norm(hidden_size)
        self.mlp = Mlp(hidden_size, mlp_ratio=mlp_ratio)
        self.adaLN_modulation = adaln_modulation(hidden_size, 6)
        # not the mixer: its initial step sizes would be lost
        xavier_linears(self.mlp)
        self.conv2d = None if conv_grid is None else DepthwiseConv2d(hidden_size, conv_grid)

    @cast_together
    def forward(self, x: Tensor, c: Tensor, *, kept: Tensor | None = None) -> Tensor:
        """x: (b, l, d).   c: (b, d), or a row for several consecutive ones.   Returns (b, l, d).

        kept: (b, l), ascending places of the tokens in their grid, when not all of them are there; the
        convolution over the grid is left out then.
        """
        modulation = shared_rows(self.adaLN_modulation(c), x)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation.chunk(6, dim=1)
        normed, x = norm_and_pass(self.norm1, x, shift_1, scale_1)
        mixed = self.mixer(normed) if kept is None else self.mixer(normed, kept)
        x, normed = gated_add_then_norm(self.norm2, x, gate_1, mixed, shift_2, scale_2)
        x = gated_add(x, gate_2, self.mlp(normed))
        return x if self.conv2d is None or kept is not None else self.conv2d(x)


def xavier_linears(*modules: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every Linear inside, as in DiT."""
    for layer in (inner for module in modules for inner in module.modules() if isinstance(inner, nn.Linear)):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def run_blocks(
    blocks: Iterable[nn.Module],
    x: Tensor,
    c: Tensor,
    *,
    gradient_checkpointing: bool = False,
    **shared: Any,
) -> Tensor:
    """Apply the blocks in turn; with gradient_checkpointing each is computed again in the backward pass.

    x: (b, l, d).   c: (b, d).   shared: what every block is given besides.   Returns (b, l, d).
    """
    recompute = gradient_checkpointing and torch.is_grad_enabled()
    for block in blocks:
        x = checkpoint(block, x, c, use_reentrant=False, **shared) if recompute else block(x, c, **shared)
    return x

"""Matten's Mamba block with M-AdaN, and the blocks of its variant with conditional tokens (section 3.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import UsageError, did_you_mean
from genzoo.nn.attention import Attention
from genzoo.nn.blocks import xavier_linears
from genzoo.nn.casting import cast_together
from genzoo.nn.mamba import MambaMixer
from genzoo.nn.modulation import (
    NORM_EPS,
    Mlp,
    adaln_modulation,
    gated_add,
    norm_and_pass,
    plain_norm,
    repeat_rows,
    shared_rows,
)

RESIDUALS = ("dit", "as_printed")


class AdaptiveMambaBlock(nn.Module):
    """A bidirectional mixer under M-AdaN, without a perceptron; beta, gamma and alpha come from c.

    residual "dit":          x + alpha mixer((1 + gamma) norm(x) + beta), all three zero at the start, so that
                             a fresh block is the identity.
    residual "as_printed":   alpha x + mixer(gamma norm(x) + beta), alpha and gamma one at the start.
    """

    def __init__(self, hidden_size: int, *, residual: str = "dit", **mixer_options: Any) -> None:
        super().__init__()
        if residual not in RESIDUALS:
            hint = did_you_mean(residual, RESIDUALS) or f"choose one of {', '.join(RESIDUALS)}"
            raise UsageError(f"there is no residual {residual!r}; {hint}")
        self.residual = residual
        self.norm = plain_norm(hidden_size)
        self.mixer = MambaMixer(hidden_size, **mixer_options)
        self.adaLN_modulation = adaln_modulation(hidden_size, 3)
        if residual == "as_printed":
            nn.init.ones_(self.adaLN_modulation[1].bias[hidden_size:])  # type: ignore[index]

    @cast_together
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x: (b, l, d).   c: (b, d), or a row for several consecutive ones.   Returns (b, l, d)."""
        if self.residual == "dit":
            beta, gamma, alpha = shared_rows(self.adaLN_modulation(c), x).chunk(3, dim=1)
            normed, x = norm_and_pass(self.norm, x, beta, gamma)
            return gated_add(x, alpha, self.mixer(normed))
        beta, gamma, alpha = repeat_rows(self.adaLN_modulation(c), len(x)).chunk(3, dim=1)
        mixed = self.mixer(torch.addcmul(beta[:, None], self.norm(x), gamma[:, None]))
        return torch.addcmul(mixed, x, alpha[:, None])


class PlainMambaBlock(nn.Module):
    """x + mixer(norm(x)): the condition comes as tokens of the sequence."""

    def __init__(self, hidden_size: int, **mixer_options: Any) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, eps=NORM_EPS)
        self.mixer = MambaMixer(hidden_size, **mixer_options)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, l, d).   Returns (b, l, d)."""
        out: Tensor = x + self.mixer(self.norm(x))
        return out


class PlainAttentionBlock(nn.Module):
    """x + attention, then x + perceptron, each of the norm of x: the condition comes as tokens."""

    def __init__(self, hidden_size: int, num_heads: int, *, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_size, eps=NORM_EPS)
        self.attn = Attention(hidden_size, num_heads)
        self.norm2 = nn.LayerNorm(hidden_size, eps=NORM_EPS)
        self.mlp = Mlp(hidden_size, mlp_ratio=mlp_ratio)
        xavier_linears(self.attn, self.mlp)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, l, d).   Returns (b, l, d)."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

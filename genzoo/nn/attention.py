"""Multi-head self-attention with the key names of DiT: qkv, proj."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from genzoo.core.errors import ShapeError
from genzoo.nn.rotary import rotate

QK_EPS, RMS_EPS = 1e-5, 1e-6
SHORT = 512  # tokens up to which two products train faster than torch's fused kernel in bfloat16 on a CPU


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d_head)) v over all tokens.

    Rows of qkv.weight are q, then k, then v; inside each the rows of a head are contiguous.
    qk_norm: layer norms over each head's queries and keys, with rms_norm root-mean-square norms.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        rms_norm: bool = False,
    ) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise ShapeError(f"hidden_size {hidden_size} cannot be shared by num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=qkv_bias)
        self.q_norm, self.k_norm = (
            _head_norm(hidden_size // num_heads, rms_norm) if qk_norm else None for _ in range(2)
        )
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """x: (b, l, d).   rotation: tables of `GridRotation`.   Returns (b, l, d)."""
        q, k, v = rearrange(self.qkv(x), "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        q, k = q.to(v.dtype), k.to(v.dtype)  # norms give float32 under autocast
        mixed = rearrange(attend(q, k, v), "b h l d -> b l (h d)")
        out: Tensor = self.proj(mixed)
        return out


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, (b, h, l, d) each.

    On CPUs torch's fused kernel has a backward pass in bfloat16 that costs three to fifteen times that of the
    products themselves for short sequences; so those are trained by the products.
    """
    trained = q.requires_grad and torch.is_grad_enabled()
    if not trained or q.device.type != "cpu" or q.dtype != torch.bfloat16 or q.shape[-2] > SHORT:
        return scaled_dot_product_attention(q, k, v)
    weights: Tensor = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1)
    return weights @ v


def _head_norm(head_dim: int, rms_norm: bool) -> nn.Module:
    return nn.RMSNorm(head_dim, eps=RMS_EPS) if rms_norm else nn.LayerNorm(head_dim, eps=QK_EPS)

"""Multi-head self-attention with the key names of DiT: qkv, proj."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from genzoo.core.errors import ShapeError


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d_head)) v over all tokens.

    Rows of qkv.weight are q, then k, then v; inside each the rows of a head are contiguous.
    """

    def __init__(self, hidden_size: int, num_heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise ShapeError(f"hidden_size {hidden_size} cannot be shared by num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=qkv_bias)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, l, d).   Returns (b, l, d)."""
        q, k, v = rearrange(self.qkv(x), "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        mixed = rearrange(scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)")
        out: Tensor = self.proj(mixed)
        return out

"""The transformer block: attention and MLP whose norms are scaled, shifted and gated by the class."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize

from genzoo.core.errors import UsageError
from genzoo.kernels.attention import attention
from genzoo.kernels.gelu import TanhGelu
from genzoo.nn.casting import cast_together
from genzoo.nn.few_launches import linear_gelu
from genzoo.nn.modulation import (
    fused_add_then_norm,
    fused_norm,
    fused_norm_and_pass,
    gated_add,
    is_fused,
)
from genzoo.nn.packed import linear_of

NORM_EPS = 1e-6
# learned attention temperatures start at 4 and stay below 100
START_SCALE, MAX_SCALE = math.log(4), math.log(100)
UNNORMALISED_FACTOR = 0.25


class KeyValueCache:
    """Keys and values of the tokens so far, in one block of memory for all that will come."""

    def __init__(self, length: int) -> None:
        self.length, self.used = length, 0
        self.keys, self.values = torch.empty(0), torch.empty(0)

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add tokens and return all so far.   keys, values: (b, heads, l, d)."""
        if self.used == 0:
            shape = (*keys.shape[:2], self.length, keys.shape[-1])
            self.keys, self.values = keys.new_empty(shape), values.new_empty(shape)
        end = self.used + keys.shape[2]
        assert end <= self.length
        self.keys[:, :, self.used : end], self.values[:, :, self.used : end] = keys, values
        self.used = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class SelfAttention(nn.Module):
    """Attention with one matrix for queries, keys and values; keys have no bias.

    l2_norm: compare directions, at a learned temperature per head.
    """

    derived_buffers = ("zero_k_bias",)

    def __init__(self, hidden_size: int, num_heads: int, *, l2_norm: bool) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise UsageError(f"hidden_size {hidden_size} cannot be split into {num_heads} heads")
        self.num_heads, self.l2_norm = num_heads, l2_norm
        self.scale = 1.0 if l2_norm else UNNORMALISED_FACTOR / math.sqrt(hidden_size // num_heads)
        if l2_norm:
            self.scale_mul_1H11 = nn.Parameter(torch.full((1, num_heads, 1, 1), START_SCALE))
        self.mat_qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(hidden_size))
        self.v_bias = nn.Parameter(torch.zeros(hidden_size))
        self.zero_k_bias: Tensor
        self.register_buffer("zero_k_bias", torch.zeros(hidden_size))
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, *, bias: Tensor | None = None, cache: KeyValueCache | None = None) -> Tensor:
        """x: (b, l, d).   bias: (1, 1, l, l), added to the scores.   cache: x follows what it holds."""
        qkv_bias = torch.cat([self.q_bias, self.zero_k_bias, self.v_bias])
        qkv = linear_of(self.mat_qkv, x, qkv_bias)
        q, k, v = rearrange(qkv, "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        if self.l2_norm:
            q = normalize(q, dim=-1) * self.scale_mul_1H11.clamp(max=MAX_SCALE).exp()
            k = normalize(k, dim=-1)
        q, k = q.to(v.dtype), k.to(v.dtype)
        if cache is not None:
            k, v = cache.append(k, v)
        if bias is not None:
            bias = bias.to(q.dtype)
        mixed = attention(q, k, v, bias=bias, scale=self.scale)
        output: Tensor = self.proj(rearrange(mixed, "b h l d -> b l (h d)"))
        return output


class FeedForward(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, hidden_size: int, inner_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, inner_size)
        self.act = TanhGelu()
        self.fc2 = nn.Linear(inner_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, d) -> (b, l, d)."""
        output: Tensor = self.fc2(linear_gelu(self.fc1, self.act, x))
        return output


class Block(nn.Module):
    """Attention and MLP, each gated, in a residual stream.

    shared_adaln: six learned vectors are added to what one projection for all blocks makes of the class,
    instead of a projection of the block's own.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        *,
        mlp_ratio: float,
        drop_path: float,
        l2_norm: bool,
        shared_adaln: bool,
    ) -> None:
        super().__init__()
        self.hidden_size, self.drop_path, self.shared_adaln = hidden_size, drop_path, shared_adaln
        self.attn = SelfAttention(hidden_size, num_heads, l2_norm=l2_norm)
        self.ffn = FeedForward(hidden_size, round(hidden_size * mlp_ratio))
        if shared_adaln:
            self.ada_gss = nn.Parameter(torch.randn(1, 1, 6, hidden_size) / hidden_size**0.5)
        else:
            self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 6 * hidden_size))

    def modulation(self, condition: Tensor) -> tuple[Tensor, ...]:
        """gamma1, gamma2, scale1, scale2, shift1, shift2, each (b, 1, d): the same for every token and scale.

        condition: (b, d), or (b, 1, 6, d) from the shared projection.
        """
        if self.shared_adaln:
            return (self.ada_gss + condition).unbind(2)
        return rearrange(self.ada_lin(condition), "b (six d) -> b 1 six d", six=6).unbind(2)

    @cast_together
    def forward(
        self,
        x: Tensor,
        modulation: tuple[Tensor, ...],
        *,
        bias: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """x: (b, l, d) -> (b, l, d)."""
        gamma1, gamma2, scale1, scale2, shift1, shift2 = modulation
        normed, x = modulate_and_pass(x, scale1, shift1)
        mixed = self.attn(normed, bias=bias, cache=cache)
        if is_fused(x) and not self._drops():
            gate1, shift2, scale2 = (values.squeeze(1) for values in (gamma1, shift2, scale2))
            x, normed = fused_add_then_norm(x, gate1, mixed, shift2, scale2, NORM_EPS)
            return gated_add(x, gamma2.squeeze(1), self.ffn(normed))
        x = x + self._drop(mixed * gamma1)
        return x + self._drop(self.ffn(modulate(x, scale2, shift2)) * gamma2)

    def _drops(self) -> bool:
        return self.training and self.drop_path > 0

    def _drop(self, branch: Tensor) -> Tensor:
        """Leave a sample's branch out at random in training, and make up for it in the others."""
        if not self._drops():
            return branch
        keep = 1 - self.drop_path
        return branch * (torch.rand(len(branch), 1, 1, device=branch.device) < keep).to(branch.dtype) / keep


class HeadNorm(nn.Module):
    """The last norm, scaled and shifted by the class."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (b, l, d).   condition: (b, d)."""
        scale, shift = self.ada_lin(condition)[:, None].chunk(2, dim=-1)
        return modulate(x, scale, shift)


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """A norm without weights of its own, scaled by 1 + scale and shifted.   scale, shift: (b, 1, d)."""
    if is_fused(x):
        return fused_norm(x, shift.squeeze(1), scale.squeeze(1), NORM_EPS)
    return layer_norm(x, x.shape[-1:], eps=NORM_EPS) * (1 + scale) + shift


def modulate_and_pass(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """`modulate`, and x for what reads it besides."""
    if is_fused(x):
        return fused_norm_and_pass(x, shift.squeeze(1), scale.squeeze(1), NORM_EPS)
    return modulate(x, scale, shift), x


def own_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Within the block autocast is off; models without memory know no autocast."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)

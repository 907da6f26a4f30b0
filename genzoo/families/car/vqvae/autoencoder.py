"""The convolutional halves of the VQVAE: pixels to features and back. Names are those of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention

from genzoo.kernels.group_norm import group_norm_silu, normalised

Norm = Callable[[int], nn.GroupNorm]
"""The norm of so many channels."""


def group_norm(channels: int, *, most_groups: int, least_channels: int) -> nn.GroupNorm:
    """As many groups as are allowed, each of at least so many channels; eps 1e-6."""
    return nn.GroupNorm(min(most_groups, channels // least_channels), channels, eps=1e-6)


class ResBlock(nn.Module):
    """Two 3x3 convolutions, each after norm and SiLU, around a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.nin_shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c_in, h, w) -> (b, c_out, h, w)."""
        h = self.conv1(group_norm_silu(self.norm1, x))
        h = self.conv2(self.dropout(group_norm_silu(self.norm2, h)))
        output: Tensor = self.nin_shortcut(x) + h
        return output


class PixelAttention(nn.Module):
    """Single-head attention over all pixels of a map, added to it."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> the same shape."""
        q, k, v = rearrange(
            self.qkv(normalised(self.norm, x)), "b (three c) h w -> three b 1 (h w) c", three=3
        )
        mixed = rearrange(scaled_dot_product_attention(q, k, v), "b 1 (h w) c -> b c h w", h=x.shape[-2])
        output: Tensor = x + self.proj_out(mixed)
        return output


class Halve(nn.Module):
    """Half the size: one row and column of zeros at the far ends, then a 3x3 convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, 2h, 2w) -> (b, c, h, w)."""
        output: Tensor = self.conv(pad(x, (0, 1, 0, 1)))
        return output


class Double(nn.Module):
    """Twice the size: nearest neighbours, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, 2h, 2w)."""
        output: Tensor = self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))
        return output


class Level(nn.Module):
    """Residual blocks at one resolution, attention after each where there is any, then a change of size."""

    def __init__(
        self,
        widths: Sequence[int],
        dropout: float,
        norm: Norm,
        *,
        attention: bool,
        **resize: nn.Module | None,
    ) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.block = nn.ModuleList(ResBlock(before, after, dropout, norm) for before, after in pairs)
        self.attn = nn.ModuleList(PixelAttention(after, norm) for _, after in pairs if attention)
        (name, module), *_ = resize.items()
        self.resize_name = name if module is not None else None
        if module is not None:
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c', h', w')."""
        for index, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[index](x)
        return x if self.resize_name is None else self.get_submodule(self.resize_name)(x)


class Middle(nn.Module):
    """Residual block, attention, residual block at the coarsest resolution."""

    def __init__(self, channels: int, dropout: float, norm: Norm) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels, dropout, norm)
        self.attn_1 = PixelAttention(channels, norm)
        self.block_2 = ResBlock(channels, channels, dropout, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> the same shape."""
        output: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return output


class Encoder(nn.Module):
    """Pixels to features, at 1 / 2^(levels - 1) of the size."""

    def __init__(
        self,
        *,
        ch: int,
        ch_mult: Sequence[int],
        num_res_blocks: int,
        z_channels: int,
        dropout: float,
        norm: Norm,
    ) -> None:
        super().__init__()
        widths = [ch * factor for factor in ch_mult]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, ch, 3, padding=1)
        self.down = nn.ModuleList()
        for index, (before, after) in enumerate(zip([ch, *widths], widths, strict=False)):
            resize = Halve(after) if index < last else None
            plan = [before, *[after] * num_res_blocks]
            self.down.append(Level(plan, dropout, norm, attention=index == last, downsample=resize))
        self.mid = Middle(widths[-1], dropout, norm)
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], z_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, 3, 16h, 16w) -> (b, z, h, w)."""
        x = self.conv_in(pixels)
        for level in self.down:
            x = level(x)
        output: Tensor = self.conv_out(group_norm_silu(self.norm_out, self.mid(x)))
        return output


class Decoder(nn.Module):
    """Features to pixels. `up` is indexed by resolution, finest first, and runs from last to first."""

    def __init__(
        self,
        *,
        ch: int,
        ch_mult: Sequence[int],
        num_res_blocks: int,
        z_channels: int,
        dropout: float,
        norm: Norm,
    ) -> None:
        super().__init__()
        widths = [ch * factor for factor in ch_mult]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], dropout, norm)
        self.up = nn.ModuleList()
        for index, (after, before) in enumerate(zip(widths, [*widths[1:], widths[-1]], strict=True)):
            resize = Double(after) if index > 0 else None
            plan = [before, *[after] * (num_res_blocks + 1)]
            self.up.append(Level(plan, dropout, norm, attention=index == last, upsample=resize))
        self.norm_out = norm(ch * ch_mult[0])
        self.conv_out = nn.Conv2d(ch * ch_mult[0], 3, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """(b, z, h, w) -> (b, 3, 16h, 16w), not clamped."""
        x = self.mid(self.conv_in(features))
        for level in reversed(self.up):
            x = level(x)
        output: Tensor = self.conv_out(group_norm_silu(self.norm_out, x))
        return output

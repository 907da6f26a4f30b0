"""Images to sequences of patches and back (DiT section 3.2, DiM section 3.2)."""

from __future__ import annotations

import math

from einops import rearrange
from torch import Tensor, nn

from genzoo.core.errors import ShapeError


def unpatchify(
    tokens: Tensor, patch_size: int, *, height: int | None = None, width: int | None = None
) -> Tensor:
    """Lay flat patches out as images.

    tokens: (b, h*w, p*p*c), row-major.   height, width: the grid h, w in patches; square when left out.
    Returns (b, c, h*p, w*p).
    """
    length = tokens.shape[1]
    h = height or (length // width if width else math.isqrt(length))
    w = width or length // h
    if h * w != length or tokens.shape[2] % patch_size**2:
        raise ShapeError(
            f"{length} tokens of {tokens.shape[2]} values make no {h} x {w} grid with patch_size {patch_size}"
        )
    x: Tensor = rearrange(tokens, "b (h w) (p q c) -> b c (h p) (w q)", h=h, w=w, p=patch_size, q=patch_size)
    return x


class PatchEmbed(nn.Module):
    """A linear map of each patch, written as the strided convolution whose keys released models have."""

    def __init__(self, in_channels: int, hidden_size: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, hidden_size, patch_size, stride=patch_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform on the weight seen as a (hidden_size, c*p*p) matrix, zero bias."""
        nn.init.xavier_uniform_(self.proj.weight.data.flatten(1))
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, h*p, w*p).   Returns (b, h*w, d), token index = row * w + column."""
        _check_divisible(x.shape[-2], x.shape[-1], self.patch_size)
        # contiguous: the residual stream inherits these strides, and every norm would copy a transposed one
        tokens: Tensor = rearrange(self.proj(x), "b d h w -> b (h w) d").contiguous()
        return tokens


def _check_divisible(height: int, width: int, patch_size: int) -> None:
    if height % patch_size or width % patch_size:
        raise ShapeError(
            f"{height} x {width} cannot be cut into patches of {patch_size} x {patch_size}",
            fix="choose an image size (or latent size) that is a multiple of patch_size",
        )

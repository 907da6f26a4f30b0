"""The convolution in plain torch: a sum of shifted products, for every device and dtype."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from genzoo.kernels.native.call import real_dtype


def unsupported_reason(x: Tensor, taps: int) -> str | None:
    """Takes every device, dtype and number of taps."""
    return None


def one_direction(x: Tensor, weight: Tensor, bias: Tensor | None, *, silu: bool, reverse: bool) -> Tensor:
    """x: (b, l, d).   weight: (d, k).   Returns (b, l, d) in x's dtype."""
    dtype = real_dtype(x)
    length, taps = x.shape[1], weight.shape[1]
    padded = F.pad(x.to(dtype), (0, 0, 0, taps - 1) if reverse else (0, 0, taps - 1, 0))
    out = x.new_zeros((), dtype=dtype) if bias is None else bias.to(dtype)
    for j in range(taps):
        offset = taps - 1 - j if reverse else j
        out = out + padded[:, offset : offset + length] * weight[:, j].to(dtype)
    return (F.silu(out) if silu else out).to(x.dtype)

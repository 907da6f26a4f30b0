"""Depthwise causal convolution with a fused SiLU, channels-last, in both directions of time.

    out_t = silu(bias + sum_j weight[:, j] x_{t - (k - 1) + j})          reverse: x_{t + (k - 1) - j}

Positions outside the sequence count as zero. The reverse form equals flip(conv(flip(x))) without a flip.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genzoo.core.errors import ShapeError, UsageError

BACKENDS = ("auto", "torch", "cpu")


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    reverse: bool = False,
    activation: str | None = "silu",
    backend: str = "auto",
) -> Tensor:
    """x: (b, l, d), rows may be strided.   weight: (d, k), the last tap meets the present.   bias: (d,).

    Returns (b, l, d) in x's dtype; accumulates in float32, in float64 for float64 inputs.
    reverse looks into the future instead of the past.   activation: "silu" or None.   Raises ShapeError.
    """
    _check(x, weight, bias, activation, backend)
    return _causal_conv1d_torch(x, weight, bias, reverse, activation)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, backend: str) -> None:
    if x.ndim != 3:
        raise ShapeError(f"x must be (b, l, d), channels-last; got {tuple(x.shape)}")
    if weight.ndim != 2 or weight.shape[0] != x.shape[2] or weight.shape[1] < 1:
        raise ShapeError(f"weight must be (d, k) with d = {x.shape[2]} as in x, got {tuple(weight.shape)}")
    if bias is not None and tuple(bias.shape) != (x.shape[2],):
        raise ShapeError(f"bias must be (d,) = ({x.shape[2]},), got {tuple(bias.shape)}")
    if activation not in ("silu", None):
        raise UsageError(f"activation must be 'silu' or None, got {activation!r}")
    if backend not in BACKENDS:
        raise UsageError(f"there is no convolution backend {backend!r}; known: {', '.join(BACKENDS)}")


def _causal_conv1d_torch(
    x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool, activation: str | None
) -> Tensor:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    length, taps = x.shape[1], weight.shape[1]
    padded = F.pad(x.to(dtype), (0, 0, 0, taps - 1) if reverse else (0, 0, taps - 1, 0))
    out = None if bias is None else bias.to(dtype)
    for j in range(taps):
        offset = taps - 1 - j if reverse else j
        term = padded[:, offset : offset + length] * weight[:, j].to(dtype)
        out = term if out is None else out + term
    assert out is not None
    return (F.silu(out) if activation == "silu" else out).to(x.dtype)

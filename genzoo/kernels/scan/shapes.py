"""Layouts of the scan's tensors: checked once at the boundary, so that backends may trust them."""

from __future__ import annotations

import torch
from torch import Tensor

from genzoo.core.errors import ShapeError
from genzoo.kernels.scan.record import Scan

MAX_STATE = 256


def compute_dtype(u: Tensor) -> torch.dtype:
    """float64 inputs are computed in float64, everything else in float32."""
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def check_scan_shapes(scan: Scan, z: Tensor | None = None) -> None:
    """Raise ShapeError, naming the tensor, unless the tensors fit together.

    u, delta, z: (b, l, d).   A: (d, n).   D, delta_bias: (d,).
    B, C: (b, l, n), (b, l, g, n) with g dividing d, or (d, n).
    """
    u, delta, A, B, C, D, delta_bias = scan
    if u.ndim != 3 or u.shape[1] < 1:
        raise ShapeError(f"u must be (b, l, d) with l >= 1, got {tuple(u.shape)}; layouts are channels-last")
    if A.ndim != 2 or A.shape[0] != u.shape[2]:
        raise ShapeError(f"A must be (d, n) with d = {u.shape[2]} as in u, got {tuple(A.shape)}")
    if not 1 <= A.shape[1] <= MAX_STATE:
        raise ShapeError(f"d_state must be 1 to {MAX_STATE}, got {A.shape[1]}")
    if A.is_complex():
        raise ShapeError("A must be real; complex state matrices are not supported")
    _check_like_u("delta", delta, u)
    _check_like_u("z", z, u)
    _check_coefficient("B", B, u, A.shape[1])
    _check_coefficient("C", C, u, A.shape[1])
    for name, vector in (("D", D), ("delta_bias", delta_bias)):
        if vector is not None and tuple(vector.shape) != (u.shape[2],):
            raise ShapeError(f"{name} must be (d,) = ({u.shape[2]},), got {tuple(vector.shape)}")


def _check_like_u(name: str, tensor: Tensor | None, u: Tensor) -> None:
    if tensor is not None and tensor.shape != u.shape:
        raise ShapeError(f"{name} must have the shape of u, {tuple(u.shape)}, got {tuple(tensor.shape)}")


def _check_coefficient(name: str, tensor: Tensor, u: Tensor, n: int) -> None:
    batch, length, d = u.shape
    shape = tuple(tensor.shape)
    if shape in ((batch, length, n), (d, n)):
        return
    if (
        tensor.ndim == 4
        and shape[:2] == (batch, length)
        and shape[3] == n
        and shape[2] > 0
        and d % shape[2] == 0
    ):
        return
    expected = f"(b, l, n) = {(batch, length, n)}, (b, l, g, n) with g dividing {d}, or (d, n) = {(d, n)}"
    raise ShapeError(f"{name} must be {expected}; got {shape}")


def per_channel(coefficient: Tensor, d: int) -> Tensor:
    """B or C of any layout as (b or 1, l or 1, d or 1, n), ready to broadcast against (b, l, d, n)."""
    if coefficient.ndim == 2:
        return coefficient[None, None]
    if coefficient.ndim == 3:
        return coefficient[:, :, None]
    return coefficient.repeat_interleave(d // coefficient.shape[2], dim=2)

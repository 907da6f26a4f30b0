"""GELU by its tanh form in C, with its gradient, where C runs; torch's own elsewhere and in what is traced.

y = x s(2 u),   u = sqrt(2 / pi) (x + 0.044715 x^3),   s the logistic
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from genzoo.kernels import triton_host
from genzoo.kernels.native import call
from genzoo.kernels.native.call import describe, empty, invoke, is_eager, real_dtype

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
WORK = 16  # of a value, in multiply-adds
# of the Triton kernel: rows of a program, and of what it holds at once, and columns
CHUNK, ROWS, COLUMNS = 128, 8, 256


class TanhGelu(nn.GELU):
    """torch's module, computed by `gelu_tanh`."""

    def __init__(self) -> None:
        super().__init__(approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return gelu_tanh(x)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU of x in its dtype; computed in float32, in float64 for float64."""
    if unsupported_reason(x) is not None:
        return gelu(x, approximate="tanh")
    result: Tensor = _Gelu.apply(x) if torch.is_grad_enabled() and x.requires_grad else _run(x, None)
    return result


def gelu_and_bias_gradient(h: Tensor, grad: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of h (n, d) from that of its GELU, and of the bias (d,) added to it; for a GPU."""
    if not h.numel():
        dh = torch.ops.aten.gelu_backward(grad, h, approximate="tanh")
        return dh, dh.sum(0).to(bias.dtype)
    dh, (rows, width) = torch.empty_like(h), h.shape
    chunks = -(-rows // CHUNK)
    slots = h.new_empty((1, chunks, width), dtype=torch.float32)
    with triton_host.on_device(h):
        triton_host.kernel("triton_gelu", "backward_kernel")[(-(-width // COLUMNS) * chunks,)](
            h,
            grad,
            dh,
            slots,
            rows,
            width,
            CHUNK=CHUNK,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            num_warps=4,
            enable_fp_fusion=True,
        )
        return dh, triton_host.sum_slots([slots], [bias])[0]


def unsupported_reason(x: Tensor) -> str | None:
    """Why C cannot compute this, or None."""
    if x.device.type != "cpu" or not is_eager(x):
        return f"x is on {x.device.type}" if x.device.type != "cpu" else "x is traced"
    if x.dtype not in DTYPES:
        return f"computes float32, float64 and bfloat16, not {x.dtype}"
    return call.unavailable_reason()


def _run(x: Tensor, grad: Tensor | None) -> Tensor:
    """The value, or with the gradient of the result that of x."""
    real = real_dtype(x)
    flat = _flat(x.detach())
    result = empty(flat.shape, x.dtype)
    if x.numel():
        flat_grad = None if grad is None else _flat(grad.to(x.dtype))
        arguments = [x.numel(), *describe(flat), *describe(result), *describe(flat_grad)]
        invoke("genzoo_gelu", real, arguments, WORK * x.numel())
    return result.view(x.shape)


def _flat(x: Tensor) -> Tensor:
    """(1, 1, number) and dense: a reshaped tensor may still have gaps, or be one value repeated."""
    return x.reshape(1, 1, -1).contiguous()


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _run(x, None)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return _run(x, grad)

"""Depthwise causal convolution with a fused SiLU, channels-last, in both directions of time.

    out_t = silu(bias + sum_j weight[:, j] x_{t - (k - 1) + j})          reverse: x_{t + (k - 1) - j}

Positions outside the sequence count as zero. The reverse form equals flip(conv(flip(x))) without a flip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genzoo.core.errors import BackendUnavailable, ShapeError, UsageError
from genzoo.kernels.native.call import (
    address,
    describe,
    empty,
    invoke,
    is_eager,
    readable,
    real_dtype,
    unavailable_reason,
    vector,
)

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
    reverse looks into the future instead of the past.   activation: "silu" or None.
    Raises ShapeError, BackendUnavailable.
    """
    _check(x, weight, bias, activation, backend)
    if _use_cpu(x, backend):
        return _run(x, weight, bias, activation == "silu", reverse)
    return _torch_conv(x, weight, bias, activation == "silu", reverse)


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


def _use_cpu(x: Tensor, backend: str) -> bool:
    if backend == "torch":
        return False
    reason = unavailable_reason() if x.device.type == "cpu" else f"x is on {x.device.type}"
    if backend == "cpu" and reason is not None:
        raise BackendUnavailable(
            "convolution backend 'cpu' cannot run this call", why=reason, fix='use "auto"'
        )
    return reason is None


def _torch_conv(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
    dtype = real_dtype(x)
    length, taps = x.shape[1], weight.shape[1]
    padded = F.pad(x.to(dtype), (0, 0, 0, taps - 1) if reverse else (0, 0, taps - 1, 0))
    out = x.new_zeros((), dtype=dtype) if bias is None else bias.to(dtype)
    for j in range(taps):
        offset = taps - 1 - j if reverse else j
        out = out + padded[:, offset : offset + length] * weight[:, j].to(dtype)
    return (F.silu(out) if silu else out).to(x.dtype)


def _run(*arguments: Any) -> Tensor:
    """The operator; in eager mode without the dispatcher, whose bookkeeping would slow small models."""
    if not is_eager(arguments[0]):
        return _conv(*arguments)
    return _EagerConv.apply(*arguments) if torch.is_grad_enabled() else _conv_eagerly(*arguments)


def _conv_eagerly(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
    real = real_dtype(x)
    rows, taps, offset = readable(x.detach(), real), vector(weight, real), vector(bias, real)
    out = empty(x.shape, rows.dtype)
    arguments = [*x.shape, weight.shape[1], int(silu), int(reverse), *describe(rows), *describe(out)]
    work = 4 * x.numel() * weight.shape[1]
    invoke("genzoo_conv_forward", real, [*arguments, address(taps), address(offset)], work)
    return out.to(x.dtype)


def _conv_backward_eagerly(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; the last is empty without a bias."""
    real = real_dtype(x)
    rows, taps, offset = readable(x.detach(), real), vector(weight, real), vector(bias, real)
    grad = readable(grad, real)
    batch, _, width = x.shape
    dx = empty(x.shape, rows.dtype)
    dweight = torch.empty((batch, *weight.shape), dtype=real)
    dbias = torch.empty((batch, width), dtype=real)
    arguments = [*x.shape, weight.shape[1], int(silu), int(reverse), *describe(rows), *describe(grad)]
    arguments += [address(taps), address(offset), *describe(dx), address(dweight), address(dbias)]
    invoke("genzoo_conv_backward", real, arguments, 8 * x.numel() * weight.shape[1])
    total = torch.empty(0) if bias is None else dbias.sum(0).to(bias.dtype)
    return dx.to(x.dtype), dweight.sum(0).to(weight.dtype), total


_conv = torch.library.custom_op("genzoo::cpu_conv", _conv_eagerly, mutates_args=(), device_types="cpu")
_conv_backward = torch.library.custom_op(
    "genzoo::cpu_conv_backward", _conv_backward_eagerly, mutates_args=(), device_types="cpu"
)


@_conv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@_conv_backward.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    like = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, weight)]
    return like[0], like[1], x.new_empty(0) if bias is None else torch.empty_like(bias)


def _setup_context(ctx: object, inputs: tuple[object, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])  # type: ignore[attr-defined]
    ctx.flags = inputs[3:]  # type: ignore[attr-defined]


def _backward(ctx: object, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _differentiate(ctx, grad, _conv_backward)


def _differentiate(
    ctx: object, grad: Tensor, backward: Callable[..., tuple[Tensor, Tensor, Tensor]]
) -> tuple[Tensor | None, ...]:
    x, weight, bias = ctx.saved_tensors  # type: ignore[attr-defined]
    dx, dweight, dbias = backward(grad, x, weight, bias, *ctx.flags)  # type: ignore[attr-defined]
    return dx, dweight, None if bias is None else dbias, None, None


_conv.register_autograd(_backward, setup_context=_setup_context)


class _EagerConv(torch.autograd.Function):
    """The same operator and gradient, called directly."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        output = _conv_eagerly(*arguments)
        _setup_context(ctx, arguments, output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _differentiate(ctx, grad, _conv_backward_eagerly)

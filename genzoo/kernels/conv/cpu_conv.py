"""The convolution in C: a custom operator around `genzoo/kernels/native`, with a fake kernel and autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genzoo.kernels.native import call
from genzoo.kernels.native.call import (
    address,
    describe,
    empty,
    invoke,
    is_eager,
    readable,
    real_dtype,
    vector,
)


def unsupported_reason(x: Tensor, taps: int) -> str | None:
    """Why this call cannot run, or None."""
    return call.unavailable_reason() if x.device.type == "cpu" else f"x is on {x.device.type}"


def one_direction(x: Tensor, weight: Tensor, bias: Tensor | None, *, silu: bool, reverse: bool) -> Tensor:
    """The operator; in eager mode without the dispatcher, whose bookkeeping would slow small models."""
    arguments = (x, weight, bias, silu, reverse)
    if not is_eager(x):
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

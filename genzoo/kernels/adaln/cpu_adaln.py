"""The fused residual and norm in C as a custom operator with its gradient; functions as in `triton_adaln`.

Computes in float64 for float64 streams and in float32 otherwise; reads and writes bfloat16 directly. What a
compiler traces stays plain torch, which the compiler fuses itself.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from genzoo.kernels.adaln import parts
from genzoo.kernels.native import build, call
from genzoo.kernels.native.call import address, describe, empty, invoke, is_eager, readable, real_dtype
from genzoo.kernels.triton_host import spread

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def unsupported_reason(x: Tensor) -> str | None:
    """Why such a residual stream cannot run here, or None."""
    if x.device.type != "cpu":
        return f"x is on {x.device.type}"
    if x.dtype not in DTYPES:
        return f"computes float32, float64 and bfloat16, not {x.dtype}"
    if not (is_eager(x) or call.is_fake(x)):
        return "x is traced"
    return call.unavailable_reason()


def _run(
    x: Tensor, places: Sequence[Tensor | None], eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The operator; in eager mode without the dispatcher, whose bookkeeping would slow small models."""
    tensors, present = [tensor for tensor in places if tensor is not None], [t is not None for t in places]
    if not is_eager(x):
        return _adaln(x, tensors, present, eps, out_dtype)[:2]
    if not torch.is_grad_enabled():
        return _eagerly(x, tensors, present, eps, out_dtype)[:2]
    x1, out, _, _ = _EagerAdaln.apply(present, eps, out_dtype, x, *tensors)
    return x1, out


gated_residual, modulated_norm, gated_residual_norm = parts.forms_of(_run)


def _eagerly(
    x: Tensor, tensors: Sequence[Tensor], present: Sequence[bool], eps: float, out_dtype: torch.dtype
) -> parts.Results:
    real = real_dtype(x)
    results = parts.outputs(x, tensors, present, out_dtype, real)
    if not x.numel():
        return results
    x1, out = (_storable(result, real) for result in results[:2])
    kept = [x.detach(), *(t if t is None else t.detach() for t in spread(tensors, present))]
    kept = [None if tensor is None else readable(tensor, real) for tensor in kept]
    arguments = _arguments(x, tensors, present, eps, kept)
    for result in (x1, out):
        arguments += describe(result if result.numel() else None)
    arguments += [address(result) for result in results[2:]]
    invoke("genzoo_adaln_forward", real, arguments, _work(x))
    return x1.to(results[0].dtype), out.to(results[1].dtype), *results[2:]


def _gradients_eagerly(
    grads: Sequence[Tensor],
    grads_present: Sequence[bool],
    x1: Tensor,
    mean: Tensor,
    r: Tensor,
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    dtype: torch.dtype,
) -> list[Tensor]:
    """Gradients of x (in `dtype`, empty without a norm) and of `tensors`, in their order."""
    like, norm = grads[0], present[2]
    real = torch.float64 if torch.float64 in (dtype, like.dtype) else torch.float32
    dx = _storable(like.new_empty(like.shape if norm else (0,), dtype=dtype), real)
    # the second tensor is the branch, where there is a gate
    dbranch = like.new_empty(like.shape if present[0] else (0,), dtype=tensors[1].dtype)
    dbranch = _storable(dbranch, real)
    if not like.numel():
        return [dx, *(torch.zeros_like(t, memory_format=torch.contiguous_format) for t in tensors)]
    places = [x1 if norm else None, *spread(tensors, present)]
    kept = [None if tensor is None else readable(tensor.detach(), real) for tensor in places]
    arguments = _arguments(like, tensors, present, 0.0, kept)
    given = [None if g is None else readable(g, real) for g in spread(grads, grads_present)]
    for grad in given:
        arguments += describe(grad)
    arguments += [address(mean), address(r)]
    rows = parts.rows_per_condition(like, tensors, present)
    conditions, number = like.shape[0] * like.shape[1] // rows, present[0] + 2 * norm
    slots = torch.empty((conditions, -(-rows // _piece()), number, like.shape[2]), dtype=real)
    for result in (dx, dbranch):
        arguments += describe(result if result.numel() else None)
    invoke("genzoo_adaln_backward", real, [*arguments, address(slots)], 2 * _work(like))
    sums = iter([part.sum(1) for part in slots.unbind(2)])  # no views of one tensor: results may not overlap
    found = [dbranch if place == 1 and present[0] else next(sums) for place in range(4) if present[place]]
    return [dx.to(dtype), *(g.to(t.dtype) for g, t in zip(found, tensors, strict=True))]


def _arguments(
    x: Tensor,
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    eps: float,
    kept: Sequence[Tensor | None],
) -> list[int]:
    """Sizes, and the tensors x, branch, gate, shift, scale.   kept: x, gate, branch, shift, scale."""
    rows = parts.rows_per_condition(x, tensors, present)
    batch, length, width = x.shape
    stream, gate, branch, shift, scale = kept
    arguments = [length, width, rows, batch * length // rows]
    arguments += struct.unpack("q", struct.pack("d", eps))
    arguments += [*describe(stream), *describe(branch)]
    for vector in (gate, shift, scale):
        arguments += describe(None if vector is None else vector[:, None])
    return arguments


def _storable(result: Tensor, real: torch.dtype) -> Tensor:
    """The tensor itself if C can write it, else one that it can, on large pages where it is large."""
    written = torch.bfloat16 if result.dtype == torch.bfloat16 and real == torch.float32 else real
    return empty(result.shape, written) if result.dtype != written else result


def _work(x: Tensor) -> int:
    return 8 * x.numel()


@cache
def _piece() -> int:
    rows = ctypes.c_int64()
    build.load("f32").genzoo_adaln_rows_f32(ctypes.byref(rows))
    return rows.value


_adaln = torch.library.custom_op("genzoo::cpu_adaln", _eagerly, mutates_args=(), device_types="cpu")
_gradients = torch.library.custom_op(
    "genzoo::cpu_adaln_backward", _gradients_eagerly, mutates_args=(), device_types="cpu"
)


@_adaln.register_fake
def _(
    x: Tensor, tensors: Sequence[Tensor], present: Sequence[bool], eps: float, out_dtype: torch.dtype
) -> parts.Results:
    return parts.outputs(x, tensors, present, out_dtype, real_dtype(x))


@_gradients.register_fake
def _(
    grads: Sequence[Tensor],
    grads_present: Sequence[bool],
    x1: Tensor,
    mean: Tensor,
    r: Tensor,
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    dtype: torch.dtype,
) -> list[Tensor]:
    shape = grads[0].shape if present[2] else (0,)
    like = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]
    return [grads[0].new_empty(shape, dtype=dtype), *like]


def _backward(ctx: Any, grad_x1: Tensor | None, grad_out: Tensor | None, *unused: object) -> tuple[Any, ...]:
    return *parts.differentiate(ctx, grad_x1, grad_out, _gradients), None, None, None


_adaln.register_autograd(_backward, setup_context=parts.setup_context)


class _EagerAdaln(torch.autograd.Function):
    """The same operator and gradient, called directly."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> parts.Results:
        (present, eps, out_dtype, x), tensors = arguments[:4], arguments[4:]
        results = _eagerly(x, tensors, present, eps, out_dtype)
        ctx.mark_non_differentiable(*results[2:])
        parts.setup_context(ctx, (x, tensors, present, eps, out_dtype), results)
        return results

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        dx, found = parts.differentiate(ctx, grads[0], grads[1], _gradients_eagerly)
        return None, None, None, dx, *found

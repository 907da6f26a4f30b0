"""The convolution in Triton: both directions from one read of x, as a torch custom op with its gradient.

All arithmetic is float32; tensors may be float32, bfloat16 or float16, rows of x and of gradients strided.
Kernels: `triton_kernels`. Sums over rows and samples go through one slot per program, added up in a fixed
order: unlike atomics that gives the same bits in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genzoo.kernels import triton_host
from genzoo.kernels.direct import Direct
from genzoo.kernels.halves import buffer_of, has_room, mark_room
from genzoo.kernels.triton_host import (
    dense_rows,
    empty_like,
    spread,
    strides,
    sum_slots,
    zeros_like,
)

MAX_TAPS = 8
# Rows and channels of a program: 64 two-byte channels are one line of memory for a warp
CHUNK, LANES = 64, 64


def unsupported_reason(x: Tensor, taps: int) -> str | None:
    """Why this call cannot run, or None."""
    reason = triton_host.unsupported_reason([x])
    return f"{taps} taps, at most {MAX_TAPS}" if reason is None and taps > MAX_TAPS else reason


def one_direction(x: Tensor, weight: Tensor, bias: Tensor | None, *, silu: bool, reverse: bool) -> Tensor:
    """Into the past, or with `reverse` into the future.   x: (b, l, d).   Returns (b, l, d)."""
    absent = (None, None)
    out, out_b = _run(x, (*absent, weight, bias) if reverse else (weight, bias, *absent), silu)
    return out_b if reverse else out


def both_directions(
    x: Tensor, weight: Tensor, bias: Tensor | None, weight_b: Tensor, bias_b: Tensor | None, *, silu: bool
) -> tuple[Tensor, Tensor]:
    """Both in one launch; one more, and a sum, for all gradients."""
    return _run(x, (weight, bias, weight_b, bias_b), silu)


def _run(x: Tensor, places: Sequence[Tensor | None], silu: bool) -> tuple[Tensor, Tensor]:
    given = [tensor for tensor in places if tensor is not None]
    return convolve(x, given, [tensor is not None for tensor in places], silu)


def run_conv(
    x: Tensor, tensors: Sequence[Tensor], present: Sequence[bool], silu: bool
) -> tuple[Tensor, Tensor]:
    """tensors: those `present` of weight, bias, weight_b, bias_b.   Returns out, out_b; empty if absent."""
    out, out_b = _outputs(x, present)
    if x.numel():
        x = dense_rows(x)
        with triton_host.on_device(x):
            triton_host.kernel("conv.triton_kernels", "forward_kernel")[_grid(x)](
                x,
                strides(x),
                _dense(spread(tensors, present)),
                (out if present[0] else None, out_b if present[2] else None),
                *x.shape[1:],
                **_constants(tensors[0].shape[1], present, silu),
                UNROLL=4,
                num_warps=1,
                enable_fp_fusion=True,
            )
    return out, out_b


conv_op = torch.library.custom_op("genzoo::triton_conv", run_conv, mutates_args=())


@conv_op.register_fake
def _(x: Tensor, tensors: Sequence[Tensor], present: Sequence[bool], silu: bool) -> tuple[Tensor, Tensor]:
    return _outputs(x, present)


def run_gradient(
    grads: Sequence[Tensor], x: Tensor, tensors: Sequence[Tensor], present: Sequence[bool], silu: bool
) -> list[Tensor]:
    """Gradients of x and of `tensors`, in their order.   grads: of the outputs that are there."""
    if not x.numel():
        return [zeros_like(tensor) for tensor in (x, *tensors)]
    dx = empty_like(x)
    return [dx, *gradients_into(dx, grads, x, tensors, present, silu)]


gradient_op = torch.library.custom_op("genzoo::triton_conv_backward", run_gradient, mutates_args=())


def gradients_into(
    dx: Tensor,
    grads: Sequence[Tensor],
    x: Tensor,
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    silu: bool,
) -> list[Tensor]:
    """As `run_gradient`, with the gradient of x written to dx, whose rows may be strided."""
    x, grads = dense_rows(x), [dense_rows(grad) for grad in grads]
    taps, directions = tensors[0].shape[1], [present[0], present[2]]
    placed = spread(grads, directions)
    row = len(grads) * (taps + 1) * x.shape[2]
    slots = x.new_empty((1, _num_chunks(x) * x.shape[0], row), dtype=torch.float32)
    with triton_host.on_device(x):
        triton_host.kernel("conv.triton_kernels", "backward_kernel")[_grid(x)](
            x,
            strides(x),
            _dense(spread(tensors, present)),
            tuple(placed),
            tuple((0, 0) if grad is None else strides(grad) for grad in placed),
            dx,
            strides(dx),
            slots,
            *x.shape[1:],
            **_constants(taps, present, silu),
            UNROLL=2,
            num_warps=1,
            enable_fp_fusion=True,
        )
        return sum_slots(_slots_of(slots, taps, x.shape[2], present), tensors)


def _slots_of(slots: Tensor, taps: int, width: int, present: Sequence[bool]) -> list[Tensor]:
    """The parts of a slot: (d, k) for the taps and (d,) for the bias of each direction that is there."""
    parts, start = [], 0
    for weight, bias in (present[:2], present[2:]):
        if weight:
            middle, end = start + taps * width, start + (taps + 1) * width
            parts += [slots[..., start:middle], *([slots[..., middle:end]] if bias else [])]
            start = end
    return parts


@gradient_op.register_fake
def _(
    grads: Sequence[Tensor], x: Tensor, tensors: Sequence[Tensor], present: Sequence[bool], silu: bool
) -> list[Tensor]:
    return [empty_like(tensor) for tensor in (x, *tensors)]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, tensors, ctx.present, ctx.silu = inputs
    ctx.save_for_backward(x, *tensors)


def _backward(ctx: Any, grad: Tensor, grad_b: Tensor) -> tuple[Any, ...]:
    x, *tensors = ctx.saved_tensors
    grads = [g for g, here in ((grad, ctx.present[0]), (grad_b, ctx.present[2])) if here]
    dx, *found = differentiate(grads, x, tensors, ctx.present, ctx.silu)
    return dx, found, None, None


differentiate = Direct(gradient_op, run_gradient)
convolve = Direct(conv_op, run_conv, backward=_backward, setup_context=_setup_context)


def beside_gate(
    xz: Tensor, weight: Tensor, bias: Tensor | None, weight_b: Tensor, bias_b: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`both_directions` with SiLU of the first half of xz, and its second half for the scan's gate.

    In eager mode: their gradients are written side by side, where the scan agrees.   xz: (b, l, 2d).
    """
    places = (weight, bias, weight_b, bias_b)
    given = [tensor for tensor in places if tensor is not None]
    out, out_b, z = _BesideGate.apply(xz, [tensor is not None for tensor in places], *given)
    return out, out_b, mark_room(z)


class _BesideGate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, xz: Tensor, present: Sequence[bool], *tensors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, z = xz.chunk(2, dim=-1)
        ctx.present = present
        ctx.save_for_backward(xz, *tensors)
        return *convolve(x, tensors, present, True), z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_b: Tensor, grad_z: Tensor) -> tuple[Any, ...]:
        xz, *tensors = ctx.saved_tensors
        arguments = ([grad, grad_b], xz.chunk(2, dim=-1)[0], tensors, ctx.present, True)
        if not has_room(grad_z) or not xz.numel():
            dx, *found = differentiate(*arguments)
            return torch.cat([dx, grad_z], dim=-1), None, *found
        both = buffer_of(grad_z)
        return both, None, *gradients_into(both.chunk(2, dim=-1)[0], *arguments)


def _outputs(x: Tensor, present: Sequence[bool]) -> tuple[Tensor, Tensor]:
    out, out_b = (empty_like(x) if here else x.new_empty(0) for here in (present[0], present[2]))
    return out, out_b


def _dense(tensors: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    return tuple(None if tensor is None else tensor.contiguous() for tensor in tensors)


def _num_chunks(x: Tensor) -> int:
    return -(-x.shape[1] // CHUNK)


def _grid(x: Tensor) -> tuple[int]:
    return (-(-x.shape[2] // LANES) * _num_chunks(x) * x.shape[0],)


def _constants(taps: int, present: Sequence[bool], silu: bool) -> dict[str, Any]:
    directions = {"PAST": present[0], "FUTURE": present[2]}
    return {"SILU": silu, **directions, "TAPS": taps, "LANES": LANES, "CHUNK": CHUNK}

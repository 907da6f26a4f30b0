"""The fused residual and norm as a torch custom op with its gradient.

x and branch are (b, l, d), rows may be strided; gate, shift and scale are (c, d) with c dividing b: each row
serves b / c consecutive samples, such as the frames of a clip. Arithmetic is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genzoo.kernels import triton_host
from genzoo.kernels.adaln import parts
from genzoo.kernels.direct import Direct
from genzoo.kernels.triton_host import (
    dense_rows,
    empty_like,
    given,
    spread,
    strides,
    sum_slots,
    zeros_like,
)

MAX_WIDTH = 4096
ROWS = 16


def unsupported_reason(x: Tensor) -> str | None:
    """Why such a residual stream cannot run here, or None."""
    reason = triton_host.unsupported_reason([x])
    if reason is None and x.shape[-1] > MAX_WIDTH:
        return f"rows of {x.shape[-1]} values, at most {MAX_WIDTH} stay in one program"
    return reason


def _run(
    x: Tensor, places: Sequence[Tensor | None], eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    tensors = [tensor for tensor in places if tensor is not None]
    x1, out, _, _ = add_and_norm(x, tensors, [tensor is not None for tensor in places], eps, out_dtype)
    return x1, out


gated_residual, modulated_norm, gated_residual_norm = parts.forms_of(_run)


def norm_and_pass(
    x: Tensor, shift: Tensor, scale: Tensor, *, eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`modulated_norm`, and x for what reads it besides: the norm's kernel adds the two gradients of x.

    In eager mode.
    """
    both: tuple[Tensor, Tensor] = _NormAndPass.apply(x, shift, scale, eps, out_dtype)
    return both


def run_adaln(
    x: Tensor, tensors: Sequence[Tensor], present: Sequence[bool], eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """tensors: those `present` of gate, branch, shift, scale.   Returns x1, out, mean, r; empty if absent."""
    outputs = parts.outputs(x, tensors, present, out_dtype)
    if x.numel():
        x, (placed, placed_strides) = dense_rows(x), _parameters(spread(tensors, present))
        columns = 1 << (x.shape[2] - 1).bit_length()
        with triton_host.on_device(x):
            triton_host.kernel("adaln.triton_kernels", "forward_kernel")[(x.shape[0] * x.shape[1],)](
                x,
                strides(x),
                placed,
                placed_strides,
                tuple(given(output) for output in outputs),
                *x.shape[1:],
                parts.rows_per_condition(x, tensors, present),
                eps,
                COLUMNS=columns,
                num_warps=_warps(columns),
                enable_fp_fusion=True,
            )
    return outputs


adaln_op = torch.library.custom_op("genzoo::triton_adaln", run_adaln, mutates_args=())


@adaln_op.register_fake
def _(
    x: Tensor, tensors: Sequence[Tensor], present: Sequence[bool], eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return parts.outputs(x, tensors, present, out_dtype)


def run_gradient(
    grads: Sequence[Tensor],
    grads_present: Sequence[bool],
    x1: Tensor,
    mean: Tensor,
    r: Tensor,
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    dtype: torch.dtype,
) -> list[Tensor]:
    """Gradients of x (in `dtype`, empty without a norm) and of `tensors`, in their order.

    grads: those `grads_present` of x1 and out.   x1: the normed residual stream, empty without a norm.
    """
    gate, branch, shift, scale = spread(tensors, present)
    like = grads[0]
    if not like.numel():
        return [like.new_empty(like.shape, dtype=dtype), *(zeros_like(tensor) for tensor in tensors)]
    norm, (_, length, width) = shift is not None, like.shape
    dx = torch.empty(like.shape if norm else (0,), dtype=dtype, device=like.device)
    dbranch = None if branch is None else empty_like(branch)
    rows = parts.rows_per_condition(like, tensors, present)
    conditions, chunks, columns = (
        like.shape[0] * length // rows,
        -(-rows // ROWS),
        1 << (width - 1).bit_length(),
    )
    number = (gate is not None) + 2 * norm
    slots = like.new_empty((conditions, chunks, number, width), dtype=torch.float32)
    placed_grads = [None if g is None else dense_rows(g) for g in spread(grads, grads_present)]
    x1 = dense_rows(x1) if norm else x1
    placed, placed_strides = _parameters((gate, branch, shift, scale))
    with triton_host.on_device(like):
        triton_host.kernel("adaln.triton_kernels", "backward_kernel")[(conditions * chunks,)](
            tuple(placed_grads),
            tuple((0, 0) if g is None else strides(g) for g in placed_grads),
            (given(x1), given(mean), given(r)),
            strides(x1) if norm else (0, 0),
            placed,
            placed_strides,
            (given(dx), dbranch),
            slots,
            length,
            width,
            rows,
            GATE=gate is not None,
            NORM=norm,
            ROWS=ROWS,
            COLUMNS=columns,
            num_warps=_warps(columns),
            enable_fp_fusion=True,
        )
        summed = [tensor for tensor in (gate, shift, scale) if tensor is not None]
        found = sum_slots(list(slots.unbind(2)), summed)
    if dbranch is not None:
        found.insert(1, dbranch)
    return [dx, *found]


gradient_op = torch.library.custom_op("genzoo::triton_adaln_backward", run_gradient, mutates_args=())


@gradient_op.register_fake
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
    shape = grads[0].shape if present[2] or not grads[0].numel() else (0,)
    return [grads[0].new_empty(shape, dtype=dtype), *(empty_like(tensor) for tensor in tensors)]


def _backward(ctx: Any, grad_x1: Tensor | None, grad_out: Tensor | None, *unused: object) -> tuple[Any, ...]:
    return *parts.differentiate(ctx, grad_x1, grad_out, differentiate), None, None, None


differentiate = Direct(gradient_op, run_gradient)
add_and_norm = Direct(
    adaln_op, run_adaln, backward=_backward, setup_context=parts.setup_context, differentiable=2
)


class _NormAndPass(torch.autograd.Function):
    PRESENT = (False, False, True, True)

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, eps: float, out_dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        _, out, mean, r = add_and_norm(x, [shift, scale], _NormAndPass.PRESENT, eps, out_dtype)
        ctx.save_for_backward(x, mean, r, shift, scale)
        ctx.set_materialize_grads(False)
        return out, x.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor | None, passed: Tensor | None) -> tuple[Any, ...]:
        if grad is None:
            return passed, None, None, None, None
        x, mean, r, *tensors = ctx.saved_tensors
        grads = [grad] if passed is None else [passed, grad]
        here = [passed is not None, True]
        return *differentiate(grads, here, x, mean, r, tensors, _NormAndPass.PRESENT, x.dtype), None, None


def _parameters(places: Sequence[Tensor | None]) -> tuple[tuple[Tensor | None, ...], tuple[Any, ...]]:
    """Gate, branch, shift, scale with dense columns, and the strides of their rows."""
    placed = tuple(None if tensor is None else dense_rows(tensor) for tensor in places)
    gate, branch, shift, scale = placed
    row_strides = [0 if tensor is None else tensor.stride(0) for tensor in (gate, shift, scale)]
    branch_strides = (0, 0) if branch is None else strides(branch)
    return placed, (row_strides[0], branch_strides, *row_strides[1:])


def _warps(columns: int) -> int:
    """At most 16 values of a row in a thread."""
    return min(max(columns // 512, 1), 8)

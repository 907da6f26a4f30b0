"""What the forms of the fused residual and norm share: shapes of results and the course of the gradient.

A call has x (b, l, d) and, of gate, branch, shift and scale, those that are `present`, in this order. Results
are x1, out, mean, r, empty where absent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Results = tuple[Tensor, Tensor, Tensor, Tensor]
Run = Callable[[Tensor, Sequence["Tensor | None"], float, torch.dtype], tuple[Tensor, Tensor]]
Forms = tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[..., tuple[Tensor, Tensor]]]


def forms_of(run: Run) -> Forms:
    """A backend's three calls.   run: of x, (gate, branch, shift, scale), eps, out's dtype; gives x1, out."""

    def gated_residual(x: Tensor, gate: Tensor, branch: Tensor) -> Tensor:
        """x + gate branch, in the widest of the three dtypes."""
        return run(x, (gate, branch, None, None), 0.0, x.dtype)[0]

    def modulated_norm(
        x: Tensor, shift: Tensor, scale: Tensor, *, eps: float, out_dtype: torch.dtype
    ) -> Tensor:
        """norm(x) (1 + scale) + shift."""
        return run(x, (None, None, shift, scale), eps, out_dtype)[1]

    def gated_residual_norm(
        x: Tensor,
        gate: Tensor,
        branch: Tensor,
        shift: Tensor,
        scale: Tensor,
        *,
        eps: float,
        out_dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        """x1 = x + gate branch, and norm(x1) (1 + scale) + shift."""
        return run(x, (gate, branch, shift, scale), eps, out_dtype)

    return gated_residual, modulated_norm, gated_residual_norm


def outputs(
    x: Tensor,
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    out_dtype: torch.dtype,
    statistics: torch.dtype = torch.float32,
) -> Results:
    """Fresh tensors for the results, x1 in the widest dtype of x, gate and branch."""
    gate, norm, rows = present[0], present[2], x.shape[:2]
    wide = x.dtype
    for tensor in tensors[:2] if gate else ():
        wide = torch.promote_types(wide, tensor.dtype)
    return (
        x.new_empty(x.shape if gate else (0,), dtype=wide),
        x.new_empty(x.shape if norm else (0,), dtype=out_dtype),
        x.new_empty(rows if norm else (0,), dtype=statistics),
        x.new_empty(rows if norm else (0,), dtype=statistics),
    )


def rows_per_condition(x: Tensor, tensors: Sequence[Tensor], present: Sequence[bool]) -> int:
    """Consecutive rows that share a row of gate, shift and scale: the first or the last of the tensors."""
    condition = tensors[0] if present[0] else tensors[-1]
    return x.shape[0] // condition.shape[0] * x.shape[1]


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Results) -> None:
    """Keep what the gradient reads.   inputs: x, tensors, present, eps, dtype of out."""
    x, tensors, ctx.present, _, _ = inputs
    x1, out, mean, r = output
    ctx.dtype, ctx.out_like = x.dtype, (out.shape, out.dtype)
    normed = x1 if ctx.present[0] else x
    # a gate alone needs nothing of the stream itself
    ctx.save_for_backward(normed if ctx.present[2] else x.new_empty(0), mean, r, *tensors)
    ctx.set_materialize_grads(False)


def differentiate(
    ctx: Any, grad_x1: Tensor | None, grad_out: Tensor | None, gradient: Callable[..., list[Tensor]]
) -> tuple[Tensor | None, Sequence[Tensor | None]]:
    """Gradients of x and of the tensors.   gradient: the form's own."""
    x1, mean, r, *tensors = ctx.saved_tensors
    gate, norm = ctx.present[0], ctx.present[2]
    if norm and grad_out is None:
        shape, dtype = ctx.out_like
        grad_out = x1.new_zeros(shape, dtype=dtype)
    grads = [grad_x1 if gate else None, grad_out if norm else None]
    here = [grad is not None for grad in grads]
    if not any(here):
        return None, [None] * len(tensors)
    dx, *found = gradient(
        [grad for grad in grads if grad is not None], here, x1, mean, r, tensors, ctx.present, ctx.dtype
    )
    return dx if norm or grad_x1 is None else grad_x1.to(ctx.dtype), found

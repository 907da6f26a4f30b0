"""Small parts of the mixer that take few launches on a GPU, forward and backward; elsewhere plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


def decays(logs: Sequence[Tensor]) -> Sequence[Tensor]:
    """-exp of each, in at least float32; all of them in few launches on a GPU."""
    # rounding A to bfloat16 would change the time constants of the slow states
    logs = [log if log.dtype == torch.float64 else log.float() for log in logs]
    if on_gpu(logs[0]):
        together: tuple[Tensor, ...] = _Decays.apply(*logs)
        return together
    return [-torch.exp(log) for log in logs]


class _Decays(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *logs: Tensor) -> tuple[Tensor, ...]:
        rates = torch._foreach_exp([log.detach() for log in logs])
        torch._foreach_neg_(rates)
        ctx.save_for_backward(*rates)
        return tuple(rates)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        # the derivative of -exp is itself
        return tuple(torch._foreach_mul(list(grads), list(ctx.saved_tensors)))


def read_and_pass(layer: nn.Linear, u: Tensor) -> tuple[Tensor, Tensor]:
    """layer(u), and u for what reads it besides: its two gradients are added within the layer's product.

    u: (b, l, d).   layer: without bias.
    """
    watched = layer._forward_hooks or layer._forward_pre_hooks
    if on_gpu(u) and torch.is_grad_enabled() and type(layer) is nn.Linear and not watched:
        both: tuple[Tensor, Tensor] = _ReadAndPass.apply(u, layer.weight)
        return both
    return layer(u), u


def on_gpu(x: Tensor) -> bool:
    """Whether launches count: on a GPU, and not in what a compiler fuses itself."""
    return x.is_cuda and not torch.compiler.is_compiling()


class _ReadAndPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(u, weight)
        ctx.set_materialize_grads(False)
        return linear(u, weight), u.view_as(u)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor | None, passed: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        u, weight = ctx.saved_tensors
        if grad is None:
            return passed, None
        rows, read = grad.flatten(0, -2), u.flatten(0, -2)
        factor = weight.to(grad.dtype)
        grad_weight = (rows.t() @ read.to(grad.dtype)).to(weight.dtype)
        if passed is None or passed.dtype != grad.dtype:
            alone = (rows @ factor).to(u.dtype).view(u.shape)
            return alone if passed is None else alone + passed, grad_weight
        return torch.addmm(passed.flatten(0, -2), rows, factor).view(u.shape), grad_weight

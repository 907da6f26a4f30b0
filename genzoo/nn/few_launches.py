"""Small parts of the mixer that take few launches on a GPU, forward and backward; elsewhere plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from genzoo.kernels import triton_host
from genzoo.kernels.causal_conv1d import bidirectional_causal_conv1d
from genzoo.kernels.conv import triton_conv
from genzoo.kernels.gelu import TanhGelu, gelu_and_bias_gradient, gelu_tanh
from genzoo.nn.packed import packed_gelu


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


def linear_gelu(layer: nn.Module, act: nn.Module, x: Tensor) -> Tensor:
    """act(layer(x)); on a GPU the gradient of the GELU is summed for the bias where it is computed.

    On a CPU the GELU of a layer with packed weights is computed within its product.
    """
    fused = on_gpu(x) and torch.is_grad_enabled() and _is_plain(layer, act)
    if fused and triton_host.unsupported_reason([x]) is None:
        out: Tensor = _LinearGelu.apply(x, layer.weight, layer.bias)
        return out
    if type(act) is TanhGelu and not act._forward_hooks and (fused_gelu := packed_gelu(layer, x)) is not None:
        return fused_gelu
    activated: Tensor = act(layer(x))
    return activated


def _is_plain(layer: nn.Module, act: nn.Module) -> bool:
    """Whether these are a linear layer with a trained bias and the GELU of its kernel, and nobody watches."""
    if type(layer) is not nn.Linear or layer.bias is None or type(act) is not TanhGelu:
        return False
    watched = any(m._forward_hooks or m._forward_pre_hooks for m in (layer, act))
    return layer.bias.requires_grad and not watched


class _LinearGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        h = linear(x, weight, bias)
        ctx.save_for_backward(x, weight, bias, h)
        return gelu_tanh(h)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor]:
        x, weight, bias, h = ctx.saved_tensors
        rows, dx, dw = h.flatten(0, -2), None, None
        dh, grad_bias = gelu_and_bias_gradient(rows, grad.flatten(0, -2).contiguous(), bias)
        if ctx.needs_input_grad[0]:
            dx = (dh @ weight.to(h.dtype)).to(x.dtype).view(x.shape)
        if ctx.needs_input_grad[1]:
            dw = (dh.t() @ x.flatten(0, -2).to(h.dtype)).to(weight.dtype)
        return dx, dw, grad_bias


def convolve_beside_gate(
    xz: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_b: Tensor,
    bias_b: Tensor | None,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """`bidirectional_causal_conv1d` of the first half of xz, and its second half, which gates the scan.

    xz: (b, l, 2d).   On a GPU the gradients of the halves are written side by side, without a copy.
    """
    taps = (weight, bias, weight_b, bias_b)
    x, z = xz.chunk(2, dim=-1)
    fused = on_gpu(xz) and torch.is_grad_enabled() and backend == "auto"
    if fused and triton_conv.unsupported_reason(x, weight.shape[1]) is None:
        return triton_conv.beside_gate(xz, *taps)
    return *bidirectional_causal_conv1d(x, *taps, backend=backend), z


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

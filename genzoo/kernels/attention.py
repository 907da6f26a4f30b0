"""Softmax attention: torch's, on a CPU in bfloat16 with its gradient in C.

    y = softmax(scale q k^T + bias) v

torch's own gradient in bfloat16 takes up to eight times as long as C's for some hundred tokens: two fifths of
a training step of the small VAR. In float32, and where sequences are long, it is as fast.
"""

from __future__ import annotations

import struct
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from genzoo.kernels.native import call
from genzoo.kernels.native.call import address, describe, invoke, is_eager, real_dtype

FASTER_DTYPES, LONGEST = (torch.bfloat16,), 768
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """(b, h, l, d).

    q: (b, h, l, d).   k, v: (b, h, m, d).   scale: 1 / sqrt(d) when left out.
    bias: (b or 1, h or 1, l, m), added to the scores; -inf forbids a key.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if torch_serves_because(q, k, v, bias) is not None:
        return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    result: Tensor = _Attention.apply(q, k, v, bias, scale)
    return result


def torch_serves_because(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> str | None:
    """Why torch's gradient serves, or None."""
    tensors = [q, k, v] if bias is None else [q, k, v, bias]
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))):
        return "no gradient is asked for"
    if any(x.device.type != "cpu" or not is_eager(x) for x in tensors):
        return "a tensor is traced or not on the CPU"
    if q.dtype not in FASTER_DTYPES or max(q.shape[2], k.shape[2]) > LONGEST:
        return f"it is as fast in {q.dtype} for {q.shape[2]} queries and {k.shape[2]} keys"
    if any(x.dtype != q.dtype or not x.numel() or x.stride(-1) != 1 for x in tensors) or v.shape != k.shape:
        return "dtypes or widths differ, channels are not side by side, or a tensor is empty"
    if bias is not None and (bias.requires_grad or bias.dim() != 4):
        return "the bias has a gradient, or not four dimensions"
    return call.unavailable_reason()


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        out, sums = _forward(q, k, v, attn_mask=bias, scale=scale)
        ctx.save_for_backward(q, k, v, bias, out, sums)
        ctx.scale = scale
        result: Tensor = out
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, sums = ctx.saved_tensors
        return *_gradients(grad, q, k, v, bias, out, sums, ctx.scale), None, None


def _gradients(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    out: Tensor,
    sums: Tensor,
    scale: float,
) -> list[Tensor]:
    """Of q, k and v, each laid out as (b, l, h, d).   sums: log of the sum of exponentials, (b, h, l)."""
    real, (batch, heads, rows, width), keys = real_dtype(q), q.shape, k.shape[2]
    if bias is not None:
        bias = bias.expand(batch, heads, rows, keys)
    grad, sums = grad.to(q.dtype), sums.to(real).contiguous()
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    found = [
        torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        for x in (q, k, v)
    ]
    arguments = [batch, heads, rows, keys, width, *struct.unpack("q", struct.pack("d", scale))]
    for x in (q, k, v, out, grad, bias, *found):
        arguments += [0] * 5 if x is None else [*describe(x[:, 0]), x.stride(1)]
    work = 5 * batch * heads * rows * keys * width
    invoke("genzoo_attention_backward", real, [*arguments, address(sums)], work)
    return found

"""The gradient of attention in C beside torch's, in bfloat16 on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.measure import compare, interleave
from benchmarks.registry import Options, case
from benchmarks.scans import require_close
from genzoo.kernels.attention import attention

# samples, heads, tokens, channels of a head: the small VAR, VAR-d16, DiT-S/2, frames of a clip, DiT-XL/2
SHAPES = [(16, 4, 341, 32), (4, 16, 680, 64), (16, 6, 256, 64), (256, 6, 16, 64), (4, 16, 256, 72)]


@case("attention_gradient")
def attention_gradient(options: Options) -> list[dict[str, Any]]:
    """Forward and gradient of softmax attention in bfloat16, processor time, by shape (b, h, l, d)."""
    rows = []
    for shape in SHAPES:
        noise = torch.Generator().manual_seed(0)
        q, k, v, grad = (torch.randn(shape, generator=noise).bfloat16() for _ in range(4))
        calls = {
            "genzoo": _gradients(attention, q, k, v, grad),
            "torch": _gradients(scaled_dot_product_attention, q, k, v, grad),
        }
        gap = require_close(str(shape), calls["genzoo"]()[0].float(), calls["torch"]()[0].float(), 2e-2)
        seconds = interleave(calls, options.repeats, clock="cpu")
        rows.append({"name": str(shape), **compare("genzoo", seconds), "gap": gap})
    return rows


def _gradients(
    form: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, grad: Tensor
) -> Callable[[], tuple[Tensor, ...]]:
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    return lambda: torch.autograd.grad(form(*leaves), leaves, grad)

"""Forms of the fused residual and norm, their definition in plain torch, inputs, and blocks that use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from genzoo.families.car.var.blocks import Block
from genzoo.families.matten.blocks import AdaptiveMambaBlock
from genzoo.nn.blocks import AttentionBlock, MambaBlock
from genzoo.nn.modulation import FinalLayer

EPS = 1e-6
Forms = dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[str, ...]]]


def exact_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    each = len(x) // len(shift)
    shift, scale = (t.repeat_interleave(each, 0)[:, None] for t in (shift, scale))
    return layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


def exact_residual(x: Tensor, gate: Tensor, branch: Tensor) -> Tensor:
    return x + gate.repeat_interleave(len(x) // len(gate), 0)[:, None] * branch


def exact_both(
    x: Tensor, gate: Tensor, branch: Tensor, shift: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    x1 = exact_residual(x, gate, branch)
    return x1, exact_norm(x1, shift, scale)


def forms_of(kernels: Any) -> Forms:
    """The fused form, the exact one and the names of their arguments.   kernels: of `kernels.adaln`."""

    def fused_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        out: Tensor = kernels.modulated_norm(x, shift, scale, eps=EPS, out_dtype=shift.dtype)
        return out

    def fused_both(
        x: Tensor, gate: Tensor, branch: Tensor, shift: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        both: tuple[Tensor, Tensor] = kernels.gated_residual_norm(
            x, gate, branch, shift, scale, eps=EPS, out_dtype=shift.dtype
        )
        return both

    return {
        "norm": (fused_norm, exact_norm, ("x", "shift", "scale")),
        "residual": (kernels.gated_residual, exact_residual, ("x", "gate", "branch")),
        "both": (fused_both, exact_both, ("x", "gate", "branch", "shift", "scale")),
    }


def make_inputs(b: int, c: int, l: int, d: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """x in float32, the others in `dtype`; x and branch halves, the modulation chunks of one tensor."""
    g = torch.Generator().manual_seed(0)
    stream = torch.randn(b, l, 2 * d, generator=g).chunk(2, dim=2)
    chunks = torch.randn(c, 3 * d, generator=g).to(dtype).chunk(3, dim=1)
    named = dict(zip(("gate", "shift", "scale"), chunks, strict=True))
    return {"x": stream[0], "branch": stream[1].to(dtype), **named}


def run(
    function: Callable[..., Any], tensors: Sequence[Tensor], rounded: torch.dtype | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Results and gradients.   rounded: what incoming gradients are rounded to first."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    found = function(*leaves)
    outs = list(found) if isinstance(found, tuple) else [found]
    # strided rows, and another cotangent for each output
    grads = [torch.sin(torch.arange(2 * o.numel(), dtype=torch.float64) + i) for i, o in enumerate(outs)]
    grads = [
        g.view(*o.shape[:2], 2 * o.shape[2])[..., : o.shape[2]].to(rounded or o.dtype).to(o.dtype)
        for g, o in zip(grads, outs, strict=True)
    ]
    return outs, list(torch.autograd.grad(outs, leaves, grads))


def relative_error(value: Tensor, expected: Tensor) -> float:
    return float((value.detach().double() - expected.detach()).norm() / expected.detach().norm())


def dit_like(block: torch.nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    torch.nn.init.normal_(block.adaLN_modulation[1].weight)  # type: ignore[index]
    return lambda x, c: block(x, c)


def var_like(block: Block) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, c: block(x, block.modulation(c.repeat_interleave(2, 0)))


torch.manual_seed(0)  # the same weights in every run: bf16 in the interpreter is near the tolerance
BLOCKS: dict[str, tuple[torch.nn.Module, Callable[..., Any]]] = {
    "dim": (MambaBlock(12, d_state=2), dit_like),
    "dit": (AttentionBlock(12, 3), dit_like),
    "matten": (AdaptiveMambaBlock(12, d_state=2), dit_like),
    "final": (FinalLayer(12, 5), dit_like),
    "var": (
        Block(12, 3, mlp_ratio=2.0, drop_path=0.0, l2_norm=True, shared_adaln=False),
        var_like,
    ),
}

"""Adaptive layer norm (adaLN-Zero of DiT): the condition shifts, scales and gates every branch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genzoo.kernels.adaln import cpu_adaln, triton_adaln
from genzoo.kernels.gelu import TanhGelu
from genzoo.nn.few_launches import linear_gelu, on_gpu

NORM_EPS = 1e-6


def plain_norm(hidden_size: int) -> nn.LayerNorm:
    """Layer norm without parameters: the modulation supplies shift and scale."""
    return nn.LayerNorm(hidden_size, eps=NORM_EPS, elementwise_affine=False)


def block_norm(hidden_size: int, *, rms_norm: bool = False) -> nn.LayerNorm | nn.RMSNorm:
    """`plain_norm`, or a root-mean-square norm with weights, which LightningDiT has beside the modulation."""
    return nn.RMSNorm(hidden_size, eps=NORM_EPS) if rms_norm else plain_norm(hidden_size)


def adaln_modulation(hidden_size: int, num: int) -> nn.Sequential:
    """c: (b, d) -> (b, num*d), zero at the start so that the branches begin closed."""
    layers = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, num * hidden_size))
    zero_linear(layers[1])
    return layers


def zero_linear(layer: nn.Module) -> None:
    """Set weight and bias of a Linear to zero."""
    nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def kernels_for(x: Tensor) -> Any:
    """The fused kernels for a residual stream, a module of `kernels.adaln`; None for plain torch."""
    module = {"cuda": triton_adaln, "cpu": cpu_adaln}.get(x.device.type)
    return module if module is not None and module.unsupported_reason(x) is None else None


def is_fused(x: Tensor) -> bool:
    """Whether a residual stream goes through fused kernels, which read shared rows where they lie."""
    return kernels_for(x) is not None


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift.   x: (b, l, d).   shift, scale: (b, d)."""
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])


def repeat_rows(values: Tensor, num_rows: int) -> Tensor:
    """Repeat rows so that each serves several consecutive sequences: frames of a clip share its condition.

    values: (b, m), num_rows a multiple of b.   Returns (num_rows, m).
    """
    # shapes and not len(), which makes a plain number of a batch that a graph leaves open
    rows = values.shape[0]
    each = num_rows // rows if rows else 1
    return values if each == 1 else values.repeat_interleave(each, dim=0)


def shared_rows(values: Tensor, x: Tensor) -> Tensor:
    """`repeat_rows` for the sequences of x: (b, l, d), unless the kernels that follow share them anyway."""
    return values if is_fused(x) else repeat_rows(values, x.shape[0])


def modulated_norm(norm: nn.LayerNorm | nn.RMSNorm, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x) (1 + scale) + shift.   x: (b, l, d).   shift, scale: of `shared_rows`."""
    if isinstance(norm, nn.LayerNorm) and is_fused(x):
        return fused_norm(x, shift, scale, norm.eps)
    return modulate(norm(x), repeat_rows(shift, len(x)), repeat_rows(scale, len(x)))


def norm_and_pass(
    norm: nn.LayerNorm | nn.RMSNorm, x: Tensor, shift: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """`modulated_norm`, and x for what reads it besides; on a GPU the norm's kernel adds their gradients."""
    if isinstance(norm, nn.LayerNorm) and is_fused(x):
        return fused_norm_and_pass(x, shift, scale, norm.eps)
    return modulated_norm(norm, x, shift, scale), x


def gated_add(x: Tensor, gate: Tensor, branch: Tensor) -> Tensor:
    """x + gate * branch.   x, branch: (b, l, d).   gate: of `shared_rows`."""
    if is_fused(x):
        added: Tensor = kernels_for(x).gated_residual(x, gate, branch)
        return added
    return torch.addcmul(x, gate[:, None], branch)


def gated_add_then_norm(
    norm: nn.LayerNorm | nn.RMSNorm,
    x: Tensor,
    gate: Tensor,
    branch: Tensor,
    shift: Tensor,
    scale: Tensor,
) -> tuple[Tensor, Tensor]:
    """`gated_add`, and `modulated_norm` of its result; where kernels are fused, from one read of x."""
    if isinstance(norm, nn.LayerNorm) and is_fused(x):
        return fused_add_then_norm(x, gate, branch, shift, scale, norm.eps)
    x = gated_add(x, gate, branch)
    return x, modulated_norm(norm, x, shift, scale)


def fused_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """The norm without weights, scaled by 1 + scale and shifted, in one kernel.   Needs `is_fused(x)`."""
    out_dtype = _read_dtype(x, shift)
    out: Tensor = kernels_for(x).modulated_norm(x, shift, scale, eps=eps, out_dtype=out_dtype)
    return out


def fused_norm_and_pass(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`fused_norm`, and x for what reads it besides."""
    if not (on_gpu(x) and torch.is_grad_enabled()):
        return fused_norm(x, shift, scale, eps), x
    return triton_adaln.norm_and_pass(x, shift, scale, eps=eps, out_dtype=_read_dtype(x, shift))


def fused_add_then_norm(
    x: Tensor, gate: Tensor, branch: Tensor, shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """x + gate * branch, and `fused_norm` of it, in one kernel.   Needs `is_fused(x)`."""
    out_dtype = _read_dtype(x, shift)
    both: tuple[Tensor, Tensor] = kernels_for(x).gated_residual_norm(
        x, gate, branch, shift, scale, eps=eps, out_dtype=out_dtype
    )
    return both


def _read_dtype(x: Tensor, modulation: Tensor) -> torch.dtype:
    """What the linear layer after a norm makes of its input: under autocast it would cast it itself."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return torch.promote_types(x.dtype, modulation.dtype)


class Mlp(nn.Module):
    """fc2(GELU_tanh(fc1(x)))."""

    def __init__(self, hidden_size: int, *, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        width = int(hidden_size * mlp_ratio)
        self.fc1 = nn.Linear(hidden_size, width)
        self.act = TanhGelu()
        self.fc2 = nn.Linear(width, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, l, d).   Returns (b, l, d)."""
        out: Tensor = self.fc2(linear_gelu(self.fc1, self.act, x))
        return out


class SwiGlu(nn.Module):
    """w3(silu(a) b), a and b the halves of w12(x); two thirds as wide as an `Mlp`, so about as large."""

    def __init__(self, hidden_size: int, *, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        width = int(2 / 3 * int(hidden_size * mlp_ratio))
        self.w12 = nn.Linear(hidden_size, 2 * width)
        self.w3 = nn.Linear(width, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, l, d).   Returns (b, l, d)."""
        a, b = self.w12(x).chunk(2, dim=-1)
        out: Tensor = self.w3(nn.functional.silu(a) * b)
        return out


class FinalLayer(nn.Module):
    """Modulated norm, then a zero-initialised Linear to the values of each patch."""

    def __init__(self, hidden_size: int, num_outputs: int, *, rms_norm: bool = False) -> None:
        super().__init__()
        self.norm_final = block_norm(hidden_size, rms_norm=rms_norm)
        self.linear = nn.Linear(hidden_size, num_outputs)
        self.adaLN_modulation = adaln_modulation(hidden_size, 2)
        zero_linear(self.linear)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x: (b, l, d).   c: (b, d), or a row for several consecutive ones.   Returns (b, l, num_outputs)."""
        shift, scale = shared_rows(self.adaLN_modulation(c), x).chunk(2, dim=1)
        out: Tensor = self.linear(modulated_norm(self.norm_final, x, shift, scale))
        return out

"""Scan inputs and peers that the scan benchmarks share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def scan_inputs(
    b: int,
    l: int,
    d: int,
    n: int = 16,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    requires_grad: bool = False,
) -> dict[str, Tensor]:
    """Mamba's initial A, D and step sizes with random rows, channels-last."""
    g = torch.Generator().manual_seed(0)
    rows = {name: torch.randn(b, l, d, generator=g).to(dtype) for name in ("u", "delta", "z")}
    rows |= {name: torch.randn(b, l, n, generator=g).to(dtype) for name in ("B", "C")}
    dt = torch.exp(torch.rand(d, generator=g) * 4.6 - 6.9)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    rows["A"] = -torch.arange(1, n + 1, dtype=real).repeat(d, 1)
    rows["D"], rows["delta_bias"] = torch.ones(d, dtype=real), (dt + torch.log(-torch.expm1(-dt))).to(real)
    return {name: rows[name].to(device).requires_grad_(requires_grad) for name in NAMES}


def mambapy_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor
) -> Tensor:
    """What mambapy's MambaBlock does around its parallel scan, with the same bias, skip and gate."""
    from mambapy.pscan import pscan

    dt = F.softplus(delta + bias)
    states = pscan(torch.exp(dt.unsqueeze(-1) * A), dt.unsqueeze(-1) * B.unsqueeze(2) * u.unsqueeze(-1))
    return ((states @ C.unsqueeze(-1)).squeeze(3) + D * u) * F.silu(z)


def transformers_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor
) -> Tensor:
    """transformers' own sequential path; takes and returns its layout (b, d, l)."""
    from transformers.models.mamba import modeling_mamba

    return modeling_mamba.mamba_selective_scan(
        u, delta, A, B, C, D=D, z=z, delta_bias=bias, delta_softplus=True
    )


def stock_reference_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor
) -> Tensor:
    """The form of mamba_ssm's reference: all (b, d, l, n) decays and drives first, then a loop; (b, d, l)."""
    dt = F.softplus(delta + bias[:, None])
    decay = torch.exp(torch.einsum("bdl,dn->bdln", dt, A))
    drive = torch.einsum("bdl,bnl,bdl->bdln", dt, B, u)
    state, outputs = u.new_zeros(decay.shape[0], decay.shape[1], decay.shape[3]), []
    for t in range(u.shape[2]):
        state = decay[:, :, t] * state + drive[:, :, t]
        outputs.append(torch.einsum("bdn,bn->bd", state, C[:, :, t]))
    return (torch.stack(outputs, dim=2) + u * D[:, None]) * F.silu(z)


def n_first_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor
) -> Tensor:
    """The strongest simple form without gradients: one step at a time, in place, states beside channels."""
    dt, rates = F.softplus(delta + bias), A.t().contiguous()
    drive, y = dt * u, u.new_empty(u.shape[1], u.shape[0], 1, u.shape[2])
    state, step = u.new_zeros(2, len(u), *rates.shape)
    for t in range(u.shape[1]):
        torch.mul(dt[:, t, None], rates, out=step)
        state.mul_(step.exp_())
        torch.mul(B[:, t, :, None], drive[:, t, None], out=step)
        torch.bmm(C[:, t, None], state.add_(step), out=y[t])
    return (y.squeeze(2).transpose(0, 1) + u * D) * F.silu(z)


def channels_first(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same values in the layout (b, d, l), contiguous, so that a peer pays for no transpose."""
    rows = ("u", "delta", "B", "C", "z")
    moved = {
        k: v.detach().transpose(1, 2).contiguous() if k in rows else v.detach() for k, v in inputs.items()
    }
    return {k: v.requires_grad_(inputs[k].requires_grad) for k, v in moved.items()}


def relative_gap(actual: Tensor, expected: Tensor) -> float:
    """Relative L2 distance in float64."""
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).norm() / expected.norm())


def require_close(name: str, actual: Tensor, expected: Tensor, tolerance: float) -> float:
    """The gap, or an error: what is wrong is not timed."""
    gap = relative_gap(actual, expected)
    if not gap <= tolerance:
        raise AssertionError(
            f"{name} differs from the reference by {gap:.1e} (allowed {tolerance:.0e}); not timed"
        )
    return gap


def values(inputs: dict[str, Tensor]) -> Any:
    """Positional arguments in the order of NAMES."""
    return tuple(inputs[name] for name in NAMES)

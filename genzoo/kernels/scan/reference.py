"""The specification of the selective scan: one plain loop over time, differentiated by autograd.

    dt_t = softplus(delta_t + delta_bias)              (identity above 20; no softplus without the flag)
    h_t  = exp(dt_t A) h_{t-1} + dt_t B_t u_t,  h_0 = 0
    y_t  = sum_n C_t[n] h_t[n] + D u_t
    out  = y_t silu(z_t)

Computes in float64 for float64 inputs and in float32 otherwise; the result has u's dtype.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genzoo.kernels.scan.shapes import compute_dtype, per_channel


def unavailable_reason() -> str | None:
    """Always there."""
    return None


def unsupported_reason(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> str | None:
    """Takes every layout, dtype and device."""
    return None


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = False,
    reverse: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan in one direction; shapes as in `genzoo.kernels.selective_scan`."""
    y, state = _scan(u, delta, A, B, C, D, delta_bias, delta_softplus=delta_softplus, reverse=reverse)
    out = _gate(y, z).to(u.dtype)
    return (out, state) if return_last_state else out


def bidirectional_selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    u_b: Tensor,
    delta_b: Tensor,
    A_b: Tensor,
    B_b: Tensor,
    C_b: Tensor,
    D_b: Tensor | None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_bias_b: Tensor | None = None,
    *,
    delta_softplus: bool = False,
) -> Tensor:
    """The sum of a forward and a reverse scan, gated once."""
    y, _ = _scan(u, delta, A, B, C, D, delta_bias, delta_softplus=delta_softplus, reverse=False)
    y_b, _ = _scan(
        u_b, delta_b, A_b, B_b, C_b, D_b, delta_bias_b, delta_softplus=delta_softplus, reverse=True
    )
    return _gate(y + y_b, z).to(u.dtype)


def _gate(y: Tensor, z: Tensor | None) -> Tensor:
    return y if z is None else y * F.silu(z.to(y.dtype))


def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    *,
    delta_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Returns y (b, l, d) and the last state (b, d, n), both in the compute dtype."""
    dtype = compute_dtype(u)
    batch, length, d = u.shape
    u, delta, A = u.to(dtype), delta.to(dtype), A.to(dtype)
    B = per_channel(B.to(dtype), d).expand(batch, length, d, -1)
    C = per_channel(C.to(dtype), d).expand(batch, length, d, -1)
    if delta_bias is not None:
        delta = delta + delta_bias.to(dtype)
    if delta_softplus:
        delta = F.softplus(delta)
    state = u.new_zeros(batch, d, A.shape[1])
    outputs: list[Tensor] = []
    for t in reversed(range(length)) if reverse else range(length):
        step = delta[:, t, :, None]
        state = torch.exp(step * A) * state + step * B[:, t] * u[:, t, :, None]
        outputs.append((state * C[:, t]).sum(-1))
    y = torch.stack(outputs[::-1] if reverse else outputs, dim=1)
    return (y if D is None else y + D.to(dtype) * u), state

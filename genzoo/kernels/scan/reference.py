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

from genzoo.kernels.scan.record import Scan, gated
from genzoo.kernels.scan.shapes import compute_dtype, per_channel


def unavailable_reason() -> str | None:
    """Always there."""
    return None


def unsupported_reason(scan: Scan, z: Tensor | None) -> str | None:
    """Takes every layout, dtype and device."""
    return None


def one_direction(
    scan: Scan, *, z: Tensor | None, softplus: bool, reverse: bool, want_state: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The gated output (b, l, d), and the last state (b, d, n) if wanted."""
    y, state = _recur(scan, softplus=softplus, reverse=reverse)
    return gated(y, z, scan.u), state if want_state else None


def both_directions(first: Scan, second: Scan, *, z: Tensor | None, softplus: bool) -> Tensor:
    """The sum of a forward and a reverse scan, gated once."""
    y, _ = _recur(first, softplus=softplus, reverse=False)
    y_b, _ = _recur(second, softplus=softplus, reverse=True)
    return gated(y + y_b, z, first.u)


def _recur(scan: Scan, *, softplus: bool, reverse: bool) -> tuple[Tensor, Tensor]:
    """Returns y (b, l, d) and the last state (b, d, n), both in the compute dtype."""
    dtype = compute_dtype(scan.u)
    batch, length, d = scan.u.shape
    u, delta, A = scan.u.to(dtype), scan.delta.to(dtype), scan.A.to(dtype)
    B = per_channel(scan.B.to(dtype), d).expand(batch, length, d, -1)
    C = per_channel(scan.C.to(dtype), d).expand(batch, length, d, -1)
    if scan.delta_bias is not None:
        delta = delta + scan.delta_bias.to(dtype)
    if softplus:
        delta = F.softplus(delta)
    state = u.new_zeros(batch, d, A.shape[1])
    outputs: list[Tensor] = []
    for t in reversed(range(length)) if reverse else range(length):
        step = delta[:, t, :, None]
        state = torch.exp(step * A) * state + step * B[:, t] * u[:, t, :, None]
        outputs.append((state * C[:, t]).sum(-1))
    y = torch.stack(outputs[::-1] if reverse else outputs, dim=1)
    return (y if scan.D is None else y + scan.D.to(dtype) * u), state

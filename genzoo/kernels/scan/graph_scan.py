"""The scan as one operator with one output, for graphs that leave genzoo: one direction, without gate."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("genzoo::scan_in_a_graph", mutates_args=())
def scan_in_a_graph(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: bool) -> Tensor:
    """h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t,   y_t = C_t h_t.

    u, dt: (b, l, d), dt positive already.   A: (d, n).   B, C: (b, l, n).   Returns (b, l, d).
    """
    rates, drive = A.t(), u * dt
    state = u.new_zeros(u.shape[0], A.shape[1], u.shape[2])
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    for t in reversed(range(u.shape[1])) if reverse else range(u.shape[1]):
        state = torch.exp(dt[:, t, None] * rates) * state + B[:, t, :, None] * drive[:, t, None]
        y[:, t] = torch.matmul(C[:, t, None], state)[:, 0]
    return y


@scan_in_a_graph.register_fake
def _(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: bool) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)

"""Backend "triton": both directions in one launch, forward and backward, as a torch custom op.

All arithmetic is float32; u, delta, B, C, z may be float32, bfloat16 or float16 and need not be contiguous: u
and z are usually two halves of one projection. The kernels are in `triton_forward` and `triton_backward`;
Triton is imported only when a scan runs. With TRITON_INTERPRET=1 they run, slowly, on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genzoo.kernels import triton_host
from genzoo.kernels.scan import triton_op
from genzoo.kernels.scan.record import Scan, pack
from genzoo.kernels.scan.shapes import MAX_STATE
from genzoo.kernels.triton_host import unavailable_reason

__all__ = ["both_directions", "one_direction", "unavailable_reason", "unsupported_reason"]


def unsupported_reason(scan: Scan, z: Tensor | None) -> str | None:
    """Why this call cannot run, or None."""
    reason = triton_host.unsupported_reason((*scan, z))
    if reason is not None:
        return reason
    if scan.B.ndim != 3 or scan.C.ndim != 3:
        return "takes B and C of shape (b, l, n) only, neither constant (d, n) nor grouped (b, l, g, n)"
    if scan.A.shape[1] > MAX_STATE:
        return f"d_state {scan.A.shape[1]} is above {MAX_STATE}"
    return None


def one_direction(
    scan: Scan, *, z: Tensor | None, softplus: bool, reverse: bool, want_state: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The gated output (b, l, d), and the last state (b, d, n) if wanted, which has no gradient."""
    out, last_state = _run([scan], z, softplus, reverse, want_state)
    return out, last_state.detach() if want_state else None


def both_directions(first: Scan, second: Scan, *, z: Tensor | None, softplus: bool) -> Tensor:
    """Both directions, their sum and the gate in one launch; one more launch for all gradients."""
    return _run([first, second], z, softplus, False, False)[0]


def _run(
    scans: Sequence[Scan], z: Tensor | None, softplus: bool, reverse: bool, want_state: bool
) -> tuple[Tensor, Tensor]:
    tensors, present = pack(scans, z)
    training = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    out, _, last_state, _, _ = triton_op.scan(tensors, present, softplus, reverse, training, want_state)
    return out, last_state

"""Backend "triton": both directions in one launch, forward and backward, as a torch custom op.

All arithmetic is float32; u, delta, B, C, z may be float32, bfloat16 or float16 and need not be contiguous: u
and z are usually two halves of one projection. The kernels are in `triton_forward` and `triton_backward`;
Triton is imported only when a scan runs. With TRITON_INTERPRET=1 they run, slowly, on the CPU.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from genzoo.kernels.scan.shapes import MAX_STATE
from genzoo.kernels.scan.triton_op import scan_op

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def unavailable_reason() -> str | None:
    """Why no scan can run on this machine, or None."""
    missing = _import_problem()
    if missing is not None:
        return missing
    if _interpreted() or torch.cuda.is_available():
        return None
    return "no CUDA device (TRITON_INTERPRET=1 runs it, very slowly, on the CPU)"


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
    """Why this call cannot run, or None."""
    tensors = [t for t in (u, delta, A, B, C, D, z, delta_bias) if t is not None]
    reason = unavailable_reason()
    if reason is not None:
        return reason
    if not _interpreted() and any(not t.is_cuda for t in tensors):
        return f"the tensors are on {u.device}, not on a CUDA device"
    wrong = sorted({str(t.dtype) for t in tensors if t.dtype not in DTYPES})
    if wrong:
        return f"computes float32, bfloat16 and float16, not {', '.join(wrong)}"
    if B.ndim != 3 or C.ndim != 3:
        return "takes B and C of shape (b, l, n) only, neither constant (d, n) nor grouped (b, l, g, n)"
    if A.shape[1] > MAX_STATE:
        return f"d_state {A.shape[1]} is above {MAX_STATE}"
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
    """Scan in one direction; shapes as in `genzoo.kernels.selective_scan`. The last state has no gradient."""
    tensors = [u, delta, A, B, C, D, z, delta_bias, *[None] * 7]
    out, _, last_state, _, _ = scan_op(
        *tensors, delta_softplus, reverse, _needs_gradient(tensors), return_last_state
    )
    return (out, last_state.detach()) if return_last_state else out


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
    """(scan(u, ...) + reverse scan(u_b, ...)) * silu(z) in one launch; one more launch for all gradients."""
    tensors = [u, delta, A, B, C, D, z, delta_bias, u_b, delta_b, A_b, B_b, C_b, D_b, delta_bias_b]
    out: Tensor = scan_op(*tensors, delta_softplus, False, _needs_gradient(tensors), False)[0]
    return out


def _needs_gradient(tensors: Sequence[Tensor | None]) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@functools.cache
def _import_problem() -> str | None:
    try:
        importlib.import_module("triton")
    except (ImportError, OSError) as error:
        return f"triton cannot be imported: {error}"
    return None

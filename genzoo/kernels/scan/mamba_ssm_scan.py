"""Backend "mamba_ssm": an adapter to the stock CUDA package, for those who have it installed.

Only `mamba_ssm.ops.selective_scan_interface.selective_scan_fn` is used. It wants channels before length,
float32 weights and one dtype for everything else, and it knows one direction, so this adapter transposes,
casts and flips; the other backends do none of that. Both directions are two passes, which the dispatcher adds
and gates.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from genzoo.core.errors import BackendUnavailable
from genzoo.kernels.scan.record import Scan
from genzoo.kernels.scan.shapes import MAX_STATE

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def unavailable_reason() -> str | None:
    """Why no scan can run on this machine, or None."""
    found = _stock_scan()
    if isinstance(found, str):
        return found
    return None if torch.cuda.is_available() else "no CUDA device"


def unsupported_reason(scan: Scan, z: Tensor | None) -> str | None:
    """Why this call cannot run, or None."""
    reason = unavailable_reason()
    if reason is not None:
        return reason
    if any(t is not None and not t.is_cuda for t in (*scan, z)):
        return f"the tensors are on {scan.u.device}, not on a CUDA device"
    if scan.u.dtype not in DTYPES:
        return f"computes float32, bfloat16 and float16, not {scan.u.dtype}"
    if scan.A.shape[1] > MAX_STATE:
        return f"d_state {scan.A.shape[1]} is above {MAX_STATE}"
    return None


def one_direction(
    scan: Scan, *, z: Tensor | None, softplus: bool, reverse: bool, want_state: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The gated output (b, l, d), and the last state (b, d, n) if wanted, which has no gradient."""
    stock, (u, delta, A, B, C, D, bias) = _stock_scan(), scan
    if isinstance(stock, str):
        raise BackendUnavailable(
            "scan backend 'mamba_ssm' cannot run", why=stock, fix="`genzoo doctor` says how it is built here"
        )
    result: Any = stock(
        _to_stock(u, u.dtype, reverse),
        _to_stock(delta, u.dtype, reverse),
        A.float(),
        _to_stock(B, u.dtype, reverse),
        _to_stock(C, u.dtype, reverse),
        D=None if D is None else D.float(),
        z=None if z is None else _to_stock(z, u.dtype, reverse),
        delta_bias=None if bias is None else bias.float(),
        delta_softplus=softplus,
        return_last_state=want_state,
    )
    out, last_state = result if want_state else (result, None)
    # the stock package has no reverse direction: in this adapter, and nowhere else, sequences are flipped
    out = rearrange(out.flip(-1) if reverse else out, "b d l -> b l d").to(u.dtype)
    return out, None if last_state is None else last_state.detach()


def _to_stock(tensor: Tensor, dtype: torch.dtype, reverse: bool) -> Tensor:
    """Channels-last to length-last, dense: (b, l, d) to (b, d, l), (b, l, g, n) to (b, g, n, l).

    Coefficients constant in time, (d, n), are weights to the stock package and stay float32.
    """
    if tensor.ndim == 2:
        return tensor.float().contiguous()
    moved: Tensor = rearrange(tensor.to(dtype), "b l ... -> b ... l")
    return (moved.flip(-1) if reverse else moved).contiguous()


def _stock_scan() -> Callable[..., Any] | str:
    """The package's function, or why it cannot be had.

    Built without its CUDA scan, as its versions since July 2026 are by default, the package is imported well
    and raises when it is called. An OSError is a CUDA library that does not load; broken drivers, or
    operators registered twice, raise whatever they like, and no other backend has to suffer for it.
    """
    try:
        module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        function: Callable[..., Any] = module.selective_scan_fn
    except Exception as error:
        return f"mamba_ssm cannot be imported: {error}"
    if vars(module).get("selective_scan_cuda") is None:
        return "mamba_ssm was built without its CUDA scan (selective_scan_cuda)"
    return function

"""The fused bidirectional scan on a GPU against two passes of the stock mamba-ssm kernel with flips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import compare, interleave
from benchmarks.registry import Options, case
from benchmarks.scans import require_close, scan_inputs
from genzoo.core.errors import BackendUnavailable, MissingDependencyError
from genzoo.kernels import available_backends, bidirectional_selective_scan

ROWS = ("u", "delta", "B", "C", "z")


@case("scan_gpu", group="gpu")
def scan_gpu(options: Options) -> list[dict[str, Any]]:
    """Both directions, triton against two stock mamba-ssm passes with flips; needs a GPU and mamba-ssm."""
    if not torch.cuda.is_available():
        raise BackendUnavailable(
            "scan_gpu needs an NVIDIA GPU", why="torch sees none", fix="run it where there is one"
        )
    reason = available_backends()["mamba_ssm"]
    if reason is not None:
        raise MissingDependencyError(
            "scan_gpu compares with mamba-ssm", why=reason, fix="`genzoo doctor` says how it is built here"
        )
    width, batch = int(options.settings.get("width", 2304)), int(options.settings.get("batch", 32))
    rows = []
    for length in (int(v) for v in options.settings.get("lengths", "256,1024,4096").split(",")):
        rows += one_length(batch, length, width, options)
    return rows


def one_length(batch: int, length: int, width: int, options: Options) -> list[dict[str, Any]]:
    """Forward, and forward with backward, at one length."""
    grad = {"dtype": torch.bfloat16, "device": "cuda", "requires_grad": True}
    first, second = scan_inputs(batch, length, width, **grad), scan_inputs(batch, length, width, **grad)
    fused, stock = fused_call(first, second), stock_call(first, second)
    wanted = [*first.values(), *(second[k] for k in ("u", "delta", "A", "B", "C", "D", "delta_bias"))]
    require_close("triton", fused(), stock(), 2e-2)
    rows = []
    with torch.no_grad():
        seconds = interleave({"genzoo triton": fused, "mamba-ssm with flips": stock}, 4 * options.repeats)
    rows.append({"name": f"forward l={length}", **compare("genzoo triton", seconds), "target": 1.7})

    def backward(call: Callable[[], Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad((out := call()), wanted, torch.ones_like(out))

    calls = {"genzoo triton": backward(fused), "mamba-ssm with flips": backward(stock)}
    seconds = interleave(calls, 4 * options.repeats)
    return [
        *rows,
        {"name": f"forward+backward l={length}", **compare("genzoo triton", seconds), "target": 1.5},
    ]


def fused_call(first: dict[str, Tensor], second: dict[str, Tensor]) -> Callable[[], Tensor]:
    """Both directions and the gate in one launch."""
    branches = [inputs[k] for inputs in (first, second) for k in ("u", "delta", "A", "B", "C", "D")]
    gate = (first["z"], first["delta_bias"], second["delta_bias"])
    return lambda: bidirectional_selective_scan(*branches, *gate, delta_softplus=True, backend="triton")


def stock_call(first: dict[str, Tensor], second: dict[str, Tensor]) -> Callable[[], Tensor]:
    """Two calls of mamba-ssm in its layout (b, d, l), the second on flipped copies, like the papers' code."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    def rows(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k: inputs[k].transpose(1, 2) if k in ROWS else inputs[k] for k in inputs}

    def one(t: dict[str, Tensor]) -> Tensor:
        gate = {"z": t["z"], "delta_bias": t["delta_bias"], "delta_softplus": True}
        return selective_scan_fn(t["u"], t["delta"], t["A"], t["B"], t["C"], t["D"], **gate)

    def run() -> Tensor:
        ahead, back = rows(first), rows(second | {"z": first["z"]})
        flipped = {k: v.flip(-1) if k in ROWS else v for k, v in back.items()}
        return (one(ahead) + one(flipped).flip(-1)).transpose(1, 2)

    return run

"""Kernels on a GPU: what the card can do, right values against float64, and times beside others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_day_parts import Bench, gap
from genzoo.kernels import available_backends, bidirectional_selective_scan, selective_scan
from genzoo.kernels.causal_conv1d import bidirectional_causal_conv1d

Shape = tuple[int, int, int, int]  # b, l, d, n
HALVES = {torch.float32: (1e-6, 5e-6), torch.bfloat16: (2**-8, 2**-7), torch.float16: (2**-11, 2**-10)}
"""Largest relative errors of outputs and of gradients."""

GRID: Sequence[tuple[Shape, torch.dtype, str, str]] = (
    ((2, 257, 96, 16), torch.float32, "split", "both"),
    ((2, 257, 96, 16), torch.bfloat16, "split", "both"),
    ((2, 257, 96, 16), torch.float16, "split", "both"),
    ((2, 100, 48, 16), torch.float32, "dense", "forward"),
    ((2, 100, 48, 16), torch.bfloat16, "time_major", "reverse"),
    ((3, 70, 33, 130), torch.float32, "split", "both"),
    ((1, 1, 5, 3), torch.float32, "split", "both"),
    ((2, 65, 64, 64), torch.bfloat16, "shared", "both"),
    ((2, 40, 32, 256), torch.float32, "split", "both"),
    ((1, 4096, 32, 16), torch.float32, "split", "both"),
    ((16, 33, 2304, 16), torch.bfloat16, "split", "both"),
    ((2, 96, 192, 8), torch.bfloat16, "split", "both"),
)
TINY_GRID: Sequence[tuple[Shape, torch.dtype, str, str]] = (
    ((1, 5, 3, 2), torch.float32, "split", "both"),
    ((2, 4, 3, 2), torch.bfloat16, "time_major", "reverse"),
)
SHAPES: Sequence[Shape] = (
    (32, 256, 2304, 16),
    (32, 1024, 2304, 16),
    (4, 4096, 2304, 16),
    (2, 256, 2304, 16),
    (1, 4096, 2304, 16),
    (2, 256, 768, 16),
)


def ceilings(bench: Bench) -> dict[str, Any]:
    """What the card reaches at best: bytes copied, products multiplied."""
    found: dict[str, Any] = {"torch": torch.__version__, "backends": available_backends()}
    if not bench.on_gpu:
        return found
    x = torch.randn(2**29, device=bench.device)
    y, m = torch.empty_like(x), torch.randn(8192, 8192, device=bench.device)
    half = m.bfloat16()
    found["device"] = torch.cuda.get_device_name()
    found["copy_TB_per_s"] = 2 * x.nbytes / bench.milliseconds(lambda: y.copy_(x))["median"] / 1e9
    found["bf16_TFLOP_per_s"] = 2 * 8192**3 / bench.milliseconds(lambda: half @ half)["median"] / 1e9
    found["fp32_TFLOP_per_s"] = 2 * 8192**3 / bench.milliseconds(lambda: m @ m, repeats=3)["median"] / 1e9
    return found


def inputs(bench: Bench, shape: Shape, dtype: torch.dtype, layout: str, seed: int) -> list[Tensor]:
    """u, delta, A, B, C, D, z and bias as a mixer makes them, z, B and C being slices, or laid out else."""
    b, l, d, n = shape
    generator = torch.Generator(bench.device).manual_seed(seed)

    def noise(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, device=bench.device)

    u, z = noise(b, l, 2 * d).to(dtype).chunk(2, -1)
    _, B, C = noise(b, l, 72 + 2 * n).to(dtype).split([72, n, n], -1)
    delta, A = noise(b, l, d).to(dtype), -3 * noise(d, n).abs() - 0.05
    if layout == "dense":
        u, z, B, C = (tensor.contiguous() for tensor in (u, z, B, C))
    if layout == "time_major":
        u, z, B, C, delta = (t.transpose(0, 1).contiguous().transpose(0, 1) for t in (u, z, B, C, delta))
    if layout == "shared":
        B, C = (tensor[:1].expand(b, -1, -1) for tensor in (B, C))
    return [u, delta, A, B, C, noise(d), z, noise(d) - 3]


def scanned(tensors: Sequence[Tensor], mode: str, backend: str) -> Tensor:
    """The scan of `arguments`."""
    if mode == "both":
        return bidirectional_selective_scan(*tensors, delta_softplus=True, backend=backend)
    out = selective_scan(*tensors, delta_softplus=True, reverse=mode == "reverse", backend=backend)
    assert isinstance(out, Tensor)
    return out


def arguments(bench: Bench, shape: Shape, dtype: torch.dtype, layout: str, mode: str) -> list[Tensor]:
    """Those of one direction, or of both."""
    first = inputs(bench, shape, dtype, layout, 0)
    if mode != "both":
        return first
    second = inputs(bench, shape, dtype, layout, 1)
    return [*first[:6], *second[:6], first[6], first[7], second[7]]


def with_gradients(tensors: Sequence[Tensor], mode: str, backend: str, cotangent: Tensor) -> list[Tensor]:
    """The output and all gradients."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    out = scanned(leaves, mode, backend)
    return [out.detach(), *torch.autograd.grad(out, leaves, cotangent.to(out.dtype))]


def correctness(bench: Bench) -> dict[str, Any]:
    """The worst relative error of each case against float64, and whether it is the same every time."""
    found: dict[str, Any] = {}
    for shape, dtype, layout, mode in TINY_GRID if bench.tiny else GRID:
        name = f"{shape} {str(dtype)[6:]} {layout} {mode}"
        with bench.noted(found, name):
            tensors = arguments(bench, shape, dtype, layout, mode)
            cotangent = torch.randn(shape[:3], device=bench.device).to(dtype)
            wanted = with_gradients([t.double() for t in tensors], mode, "reference", cotangent)
            got = with_gradients(tensors, mode, "triton", cotangent)
            errors = [gap(mine, exact) for mine, exact in zip(got, wanted, strict=True) if exact.any()]
            found[name] = {"output": errors[0], "gradients": max(errors[1:])}
            again = [
                with_gradients(tensors, mode, "triton", cotangent) for _ in range(1 if bench.tiny else 8)
            ]
            same = all(torch.equal(x, y) for run in again for x, y in zip(run, got, strict=True))
            if errors[0] > HALVES[dtype][0] or max(errors[1:]) > HALVES[dtype][1] or not same:
                bench.failures.append(name if same else f"{name}: not the same twice")
    return found


def scans(bench: Bench) -> dict[str, Any]:
    """Milliseconds of both directions: Triton, the torch backend once, mamba-ssm where it is installed."""
    found: dict[str, Any] = {}
    others = ["mamba_ssm"] if available_backends()["mamba_ssm"] is None else []
    for shape in TINY_GRID[0][:1] if bench.tiny else SHAPES:
        torch_too = ["torch"] if bench.tiny or shape == SHAPES[-1] else []
        with bench.noted(found, str(shape)):
            found[str(shape)] = scan_times(bench, shape, ["triton", *others, *torch_too])
    return found


def scan_times(bench: Bench, shape: Shape, backends: Sequence[str]) -> dict[str, Any]:
    """One row of `scans`."""
    tensors = arguments(bench, shape, torch.bfloat16, "split", "both")
    cotangent = torch.randn(shape[:3], device=bench.device).bfloat16()
    row: dict[str, Any] = {}
    for backend in backends:
        forward = partial(scanned, tensors, "both", backend)
        with torch.no_grad():
            row[f"{backend} forward"] = bench.milliseconds(forward)
            if backend == "triton":
                row["triton forward, replayed"] = bench.replayed(forward)
        whole = partial(with_gradients, tensors, "both", backend, cotangent)
        row[f"{backend} forward and backward"] = bench.milliseconds(whole, repeats=10)
    return row


def convolution(bench: Bench) -> dict[str, Any]:
    """Both directions of the mixer's convolution beside cuDNN's two and a copy of the same bytes."""
    b, l, d = (1, 5, 4) if bench.tiny else (32, 256, 2304)
    x = torch.randn(b, l, 2 * d, device=bench.device).bfloat16().chunk(2, -1)[0]
    weight, bias = torch.randn(d, 4, device=bench.device), torch.randn(d, device=bench.device)
    backend = "triton"

    def ours() -> tuple[Tensor, Tensor]:
        return bidirectional_causal_conv1d(x, weight, bias, weight, bias, backend=backend)

    def cudnn() -> Tensor:
        rows, taps = x.transpose(1, 2), weight[:, None].bfloat16()
        padded = F.conv1d(rows, taps, bias.bfloat16(), padding=3, groups=d)
        return F.silu(padded[..., :l]).transpose(1, 2)

    copy = torch.empty(b, l, d, device=bench.device, dtype=x.dtype)
    return {
        "agreement": gap(ours()[0], cudnn()),
        "triton, both directions": bench.milliseconds(ours),
        "cudnn, one direction": bench.milliseconds(cudnn),
        "copy": bench.milliseconds(lambda: copy.copy_(x)),
    }

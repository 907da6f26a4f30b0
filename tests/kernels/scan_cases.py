"""Inputs and tolerances shared by the scan's tests."""

from __future__ import annotations

import torch
from torch import Tensor

from genzoo.kernels.scan import Scan

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
# (b, l, d, n), all different in a case; tile edges of the C kernels are 32 steps, 64 channels, 16 states,
# and beyond 256 channels the gradients of B and C are sums over groups of four blocks
SHAPES = [(2, 1, 3, 4), (2, 5, 8, 3), (1, 33, 70, 16), (3, 64, 17, 21), (2, 31, 6, 1), (1, 7, 12, 256)]
SHAPES += [(2, 9, 300, 4)]
# relative L2 against the float64 reference: (outputs, gradients)
TOLERANCES = {torch.float64: (1e-13, 1e-12), torch.float32: (2e-7, 2e-6), torch.bfloat16: (1e-2, 3e-2)}


def scan_inputs(
    b: int, l: int, d: int, n: int, *, dtype: torch.dtype = torch.float32, layout: str = "bln", seed: int = 0
) -> dict[str, Tensor]:
    """Random inputs with Mamba's step sizes; coefficients in the layout asked for, parameters in fp32."""
    g = torch.Generator().manual_seed(seed)
    shapes = {"bln": (b, l, n), "dn": (d, n), "blgn": (b, l, 2 if d % 2 == 0 else 1, n)}
    rows = {name: torch.randn(b, l, d, generator=g) for name in ("u", "delta", "z")}
    coefficients = {name: torch.randn(shapes[layout], generator=g) for name in ("B", "C")}
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    dt = torch.exp(torch.rand(d, generator=g) * 4.6 - 6.9)
    fixed = {
        "A": -torch.rand(d, n, generator=g) * n - 0.1,
        "D": torch.randn(d, generator=g),
        "delta_bias": dt + torch.log(-torch.expm1(-dt)),
    }
    inputs = {k: v.to(dtype) for k, v in (rows | coefficients).items()} | {
        k: v.to(parameter) for k, v in fixed.items()
    }
    return {name: inputs[name].requires_grad_() for name in NAMES}


def scan_record(inputs: dict[str, Tensor]) -> Scan:
    """One direction of the inputs, as backends take it."""
    return Scan(**{name: inputs[name] for name in Scan._fields})


def in_double(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same values in float64."""
    return {k: v.detach().double().requires_grad_() for k, v in inputs.items()}


def gap(actual: Tensor, expected: Tensor) -> float:
    """Relative L2 distance."""
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).norm() / expected.norm().clamp_min(1e-30))

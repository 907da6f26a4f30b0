"""The scan against every `scan` case of the golden manifest: output, last state and every gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from torch import Tensor

from genzoo.kernels import selective_scan

SET, FILE = "ssm_diffusion", "scan"
INPUTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
FIXED = ("A", "D", "delta_bias")
# relative to the largest magnitude; float64 is limited by softplus becoming the identity above 20
TOLERANCE = {"f32": 1e-5, "f64": 1e-8}
DTYPE = {"f32": torch.float32, "f64": torch.float64}
CASES = golden_cases(SET, FILE)


def channels_last(name: str, x: Tensor) -> Tensor:
    """The golden layout puts the length last, ours puts it second; constant tensors have no length."""
    return x if name in FIXED or x.ndim == 2 else x.movedim(-1, 1)


def gap(actual: Tensor, expected: Tensor) -> float:
    return float((actual.detach() - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


@pytest.mark.parametrize("backend", ["reference", "torch", "auto"])
@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_scan_equals_golden(case: dict[str, Any], precision: str, backend: str) -> None:
    tensors, dtype = golden_tensors(SET, FILE, case["name"]), DTYPE[precision]
    inputs = {k: channels_last(k, tensors[k].to(dtype)).requires_grad_() for k in INPUTS if k in tensors}
    result = selective_scan(**inputs, **case["options"], backend=backend)
    out, state = result if case["options"]["return_last_state"] else (result, None)
    grad_out = channels_last("out", tensors["grad_out"].to(dtype))
    grads = dict(zip(inputs, torch.autograd.grad(out, list(inputs.values()), grad_out), strict=True))

    assert gap(out, channels_last("out", tensors[f"out_{precision}"])) < TOLERANCE[precision]
    if state is not None:
        assert gap(state, tensors[f"last_state_{precision}"]) < TOLERANCE[precision]
    for name, grad in grads.items():
        expected = channels_last(name, tensors[f"grad_{name}_{precision}"])
        assert gap(grad, expected) < TOLERANCE[precision], name

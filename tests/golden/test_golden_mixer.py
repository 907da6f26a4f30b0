"""The mixer against every `mixer` case of the golden manifest: output and every gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from torch import Tensor

from genzoo.nn.mamba import MambaMixer

SET, FILE = "ssm_diffusion", "mixer"
ARGUMENTS = {"bimamba_type": "mixer", "if_divide_out": "divide_output", "init_layer_scale": "layer_scale"}
# relative to the largest magnitude; float64 is limited by softplus becoming the identity above 20
TOLERANCE = {"f32": 1e-5, "f64": 1e-8}
DTYPE = {"f32": torch.float32, "f64": torch.float64}
CASES = golden_cases(SET, FILE)


def gap(actual: Tensor, expected: Tensor) -> float:
    scale = expected.abs().max().clamp_min(1e-30)  # A has exactly no gradient at length one
    return float((actual - expected).abs().max() / scale)


def build(case: dict[str, Any], tensors: dict[str, Tensor], dtype: torch.dtype) -> MambaMixer:
    options = {ARGUMENTS.get(key, key): value for key, value in case["options"].items()}
    mixer = MambaMixer(options.pop("d_model"), **options)
    mixer.load_state_dict({k.removeprefix("sd."): v for k, v in tensors.items() if k.startswith("sd.")})
    return mixer.to(dtype)


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_mixer_equals_golden(case: dict[str, Any], precision: str) -> None:
    tensors, dtype = golden_tensors(SET, FILE, case["name"]), DTYPE[precision]
    mixer = build(case, tensors, dtype)
    x = tensors["x"].to(dtype).requires_grad_()
    out = mixer(x)
    out.backward(tensors["grad_out"].to(dtype))

    assert sum(p.numel() for p in mixer.parameters()) == case["param_count"]
    assert gap(out.detach(), tensors[f"out_{precision}"]) < TOLERANCE[precision]
    assert gap(x.grad, tensors[f"grad_x_{precision}"]) < TOLERANCE[precision]
    expected = {k.removeprefix("gradp64."): v for k, v in tensors.items() if k.startswith("gradp64.")}
    assert set(expected) == {name for name, _ in mixer.named_parameters()}
    for name, parameter in mixer.named_parameters():
        assert gap(parameter.grad, expected[name]) < max(TOLERANCE[precision], 1e-8), name

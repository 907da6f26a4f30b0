"""How a backend is held against the `speed` set; shared by the tests here and those under the interpreter."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from golden.manifest import golden_tensors
from torch import Tensor

from genzoo.kernels.causal_conv1d import bidirectional_causal_conv1d, causal_conv1d

SET = "speed"
# relative to the largest magnitude; in sixteen bits the inputs are rounded first
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def gap(actual: Tensor, expected: Tensor) -> float:
    return float((actual.detach().double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def check_conv(case: dict[str, Any], backend: str, dtype: torch.dtype) -> None:
    """Both directions in one call, and each alone: outputs and every gradient."""
    tensors, options = golden_tensors(SET, "conv", case["name"]), case["options"]
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    x_wide = tensors["x_wide"].to(dtype).requires_grad_()
    x = x_wide[:, :, options["offset"] : options["offset"] + options["width"]]
    names = ["weight_f", "bias_f", "weight_b", "bias_b"]
    weights = {name: tensors[name].to(parameter).requires_grad_() for name in names if name in tensors}
    call: dict[str, Any] = {"activation": "silu" if options["silu"] else None, "backend": backend}
    outs = bidirectional_causal_conv1d(x, *(weights.get(name) for name in names), **call)  # type: ignore[arg-type]
    leaves = [x, *weights.values()]
    grads = torch.autograd.grad(outs, leaves, [tensors[f"grad_out_{end}"].to(dtype) for end in "fb"])

    found = dict(zip(["out_f", "out_b", "grad_x"], [*outs, grads[0]], strict=True))
    found |= {f"grad_{name}": grad for name, grad in zip(weights, grads[1:], strict=True)}
    for end in "fb":
        alone = causal_conv1d(
            x, weights[f"weight_{end}"], weights.get(f"bias_{end}"), reverse=end == "b", **call
        )
        assert torch.equal(alone, found[f"out_{end}"])
    assert set(found) <= set(tensors)
    for name, tensor in found.items():
        assert gap(tensor, tensors[name]) < TOLERANCE[dtype], name
        assert tensor.dtype == (parameter if "weight" in name or "bias" in name else dtype), name


class Norm(Protocol):
    """`genzoo.nn.modulation.gated_add_then_norm` or a fused form of it: x1, and its modulated norm."""

    def __call__(
        self, x: Tensor, gate: Tensor, branch: Tensor, shift: Tensor, scale: Tensor, *, eps: float
    ) -> tuple[Tensor, Tensor]: ...


def check_adaln(case: dict[str, Any], norm: Norm, dtype: torch.dtype) -> None:
    """Residual stream in float32 (float64), branch, modulation and result in `dtype`: all gradients."""
    tensors, options = golden_tensors(SET, "adaln", case["name"]), case["options"]
    stream = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = {name: tensors[name].to(dtype) for name in ("gate", "branch", "shift", "scale")}
    leaves = {"x": tensors["x"].to(stream), **leaves}
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    x1, out = norm(**leaves, eps=options["eps"])
    cotangents = [tensors["grad_residual"].to(x1.dtype), tensors["grad_out"].to(out.dtype)]
    grads = torch.autograd.grad((x1, out), list(leaves.values()), cotangents)
    found = {"x1": x1, "out": out, **{f"grad_{name}": g for name, g in zip(leaves, grads, strict=True)}}
    # far from zero, or hardly spread, a float32 row has few digits left
    delicate = abs(options["mean"]) > 100 * options["std"] or options["std"] < 1e-3
    tolerance = max(TOLERANCE[dtype], 2e-4 if delicate and dtype != torch.float64 else 0)
    assert out.dtype == dtype
    for name, tensor in found.items():
        assert gap(tensor, tensors[name]) < tolerance, name

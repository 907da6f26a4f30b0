"""The C kernels as torch operators: schema, fake kernels, autograd, compile and autocast."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from kernels.scan_cases import gap, scan_inputs, scan_record

from genzoo.kernels import bidirectional_selective_scan, selective_scan
from genzoo.kernels.causal_conv1d import causal_conv1d
from genzoo.kernels.conv.cpu_conv import _conv
from genzoo.kernels.native import build
from genzoo.kernels.scan import cpu_scan, torch_scan
from genzoo.kernels.scan.record import pack

pytestmark = pytest.mark.skipif(
    build.unavailable_reason() is not None, reason="no C compiler on this machine"
)


@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
def test_scan_operator_passes_opcheck(both: bool) -> None:
    scans = [scan_record(scan_inputs(2, 5, 6, 3, seed=seed)) for seed in range(1 + both)]
    z = scan_inputs(2, 5, 6, 3)["z"]
    torch.library.opcheck(cpu_scan._scan, (*pack(scans, z), True, False, not both, True))


def test_torch_scan_operator_passes_opcheck() -> None:
    inputs = scan_inputs(2, 5, 6, 3)
    dt = inputs["delta"].detach().abs().requires_grad_()
    torch.library.opcheck(torch_scan._scan, (inputs["u"], dt, inputs["A"], inputs["B"], inputs["C"], True))


@pytest.mark.parametrize("bias", [False, True])
def test_convolution_operator_passes_opcheck(bias: bool) -> None:
    x, weight = torch.randn(2, 5, 6, requires_grad=True), torch.randn(6, 3, requires_grad=True)
    torch.library.opcheck(
        _conv, (x, weight, torch.randn(6, requires_grad=True) if bias else None, True, True)
    )


def test_compiles_into_one_graph_with_the_same_gradients() -> None:
    inputs = scan_inputs(2, 5, 6, 3)
    weight = torch.randn(6, 3, requires_grad=True)

    def layer(weight: torch.Tensor, **tensors: torch.Tensor) -> torch.Tensor:
        tensors["u"] = causal_conv1d(tensors["u"], weight, reverse=True)
        return selective_scan(**tensors, delta_softplus=True).square()

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    wanted = [weight, *inputs.values()]
    out, expected = compiled(weight, **inputs), layer(weight, **inputs)
    assert torch.equal(out, expected)
    grads, exact = torch.autograd.grad(out.sum(), wanted), torch.autograd.grad(expected.sum(), wanted)
    assert all(gap(a, b) < 1e-6 for a, b in zip(grads, exact, strict=True))


def test_autocast_leaves_parameters_in_float32() -> None:
    inputs = scan_inputs(2, 8, 6, 3)
    first = [inputs[name] for name in ("u", "delta", "A", "B", "C", "D")]
    linear = torch.nn.Linear(6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        u = linear(inputs["u"])
        out = bidirectional_selective_scan(u, *first[1:], u, *first[1:], inputs["z"], delta_softplus=True)
    exact = linear(inputs["u"])
    expected = bidirectional_selective_scan(
        exact, *first[1:], exact, *first[1:], inputs["z"], delta_softplus=True, backend="reference"
    )
    assert u.dtype == out.dtype == torch.bfloat16
    assert gap(out, expected) < 1e-2
    out.float().sum().backward()
    assert linear.weight.grad is not None
    assert inputs["A"].grad is not None
    assert inputs["A"].grad.dtype == torch.float32


def test_nothing_is_kept_for_a_backward_that_will_not_come() -> None:
    inputs = scan_inputs(2, 40, 6, 3)
    tensors, present = pack([scan_record(inputs)], inputs["z"])
    with torch.no_grad():
        *_, first, second = cpu_scan._scan(tensors, present, True, False, False, False)
    assert first.numel() == second.numel() == 0


def test_kernels_load_without_the_compiler() -> None:
    """A second of start-up; `torch.compile` loads it where it is used."""
    code = "import genzoo.nn.token_denoiser, sys; print('torch._dynamo' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.split() == ["False"]

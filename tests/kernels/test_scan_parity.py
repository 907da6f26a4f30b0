"""Every backend that runs on a CPU against the float64 reference: outputs, states and every gradient."""

from __future__ import annotations

import pytest
import torch
from kernels.scan_cases import NAMES, SHAPES, TOLERANCES, gap, in_double, scan_inputs
from torch import Tensor

from genzoo.kernels import bidirectional_selective_scan, selective_scan

BACKENDS = ["torch", "cpu"]


def directions(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[Tensor]:
    """Positional arguments of the bidirectional scan."""
    names = ("u", "delta", "A", "B", "C", "D")
    branches = [inputs[name] for inputs in (first, second) for name in names]
    return [*branches, first["z"], first["delta_bias"], second["delta_bias"]]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_direction_equals_reference(
    backend: str, shape: tuple[int, int, int, int], reverse: bool, dtype: torch.dtype
) -> None:
    inputs = scan_inputs(*shape, dtype=dtype)
    exact = in_double(inputs)
    options = {"delta_softplus": True, "reverse": reverse, "return_last_state": True}
    out, state = selective_scan(**inputs, **options, backend=backend)
    expected, expected_state = selective_scan(**exact, **options, backend="reference")
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    state_weights = torch.linspace(-1, 1, state.numel(), dtype=torch.float64).view(state.shape)
    loss = (out * weights.to(out.dtype)).sum() + (state * state_weights.to(state.dtype)).sum()
    grads = torch.autograd.grad(loss, list(inputs.values()))
    exact_loss = (expected * weights.to(out.dtype).double()).sum() + (expected_state * state_weights).sum()
    exact_grads = torch.autograd.grad(exact_loss, list(exact.values()))

    output_tolerance, grad_tolerance = TOLERANCES[dtype]
    assert out.dtype == dtype
    assert gap(out, expected) < output_tolerance
    # one state alone carries the rounding of its own decay; outputs average over states
    assert gap(state, expected_state) < grad_tolerance
    for name, grad, exact_grad in zip(NAMES, grads, exact_grads, strict=True):
        assert grad.dtype == inputs[name].dtype
        assert gap(grad, exact_grad) < grad_tolerance, name


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_both_directions_equal_reference(
    backend: str, shape: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    first, second = scan_inputs(*shape, dtype=dtype), scan_inputs(*shape, dtype=dtype, seed=1)
    arguments = directions(first, second)
    exact = directions(in_double(first), in_double(second))
    out = bidirectional_selective_scan(*arguments, delta_softplus=True, backend=backend)
    expected = bidirectional_selective_scan(*exact, delta_softplus=True, backend="reference")
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(
        dtype
    )
    grads = torch.autograd.grad(out, arguments, weights)
    exact_grads = torch.autograd.grad(expected, exact, weights.double())

    assert gap(out, expected) < TOLERANCES[dtype][0]
    for index, (grad, exact_grad) in enumerate(zip(grads, exact_grads, strict=True)):
        assert gap(grad, exact_grad) < TOLERANCES[dtype][1], index


@pytest.mark.parametrize("layout", ["dn", "blgn"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_torch_backend_takes_other_layouts(layout: str, reverse: bool) -> None:
    inputs = scan_inputs(2, 21, 6, 5, dtype=torch.float64, layout=layout)
    exact = in_double(inputs)
    out = selective_scan(**inputs, delta_softplus=True, reverse=reverse, backend="torch")
    expected = selective_scan(**exact, delta_softplus=True, reverse=reverse, backend="reference")
    grads = torch.autograd.grad(out.square().sum(), list(inputs.values()))
    exact_grads = torch.autograd.grad(expected.square().sum(), list(exact.values()))

    assert gap(out, expected) < 1e-13
    for name, grad, exact_grad in zip(NAMES, grads, exact_grads, strict=True):
        assert gap(grad, exact_grad) < 1e-12, name


@pytest.mark.parametrize("present", [(), ("D",), ("z",), ("delta_bias",)], ids=str)
@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_optional_inputs(backend: str, softplus: bool, present: tuple[str, ...]) -> None:
    inputs = {k: v for k, v in scan_inputs(2, 9, 5, 3).items() if k in ("u", "A", "B", "C", *present)}
    # without softplus nothing keeps dt positive, and negative steps would make the states grow
    inputs["delta"] = (scan_inputs(2, 9, 5, 3)["delta"].detach().abs() + 7).requires_grad_()
    exact = in_double(inputs)
    out = selective_scan(**inputs, delta_softplus=softplus, backend=backend)
    expected = selective_scan(**exact, delta_softplus=softplus, backend="reference")
    grads = torch.autograd.grad(out.sum(), list(inputs.values()))
    exact_grads = torch.autograd.grad(expected.sum(), list(exact.values()))

    assert gap(out, expected) < TOLERANCES[torch.float32][0]
    for name, grad, exact_grad in zip(inputs, grads, exact_grads, strict=True):
        assert gap(grad, exact_grad) < TOLERANCES[torch.float32][1], name


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_rows_need_no_copy_and_give_the_same_result(backend: str) -> None:
    inputs = scan_inputs(2, 11, 6, 4)
    packed = torch.cat([inputs["u"], inputs["z"]], dim=2).detach()
    halves = inputs | dict(zip(("u", "z"), packed.chunk(2, dim=2), strict=True))
    mixed = torch.cat([inputs["B"], inputs["C"]], dim=2).detach()
    halves |= dict(zip(("B", "C"), mixed.chunk(2, dim=2), strict=True))

    assert not halves["u"].is_contiguous()
    expected = selective_scan(**inputs, delta_softplus=True, backend=backend)
    assert gap(selective_scan(**halves, delta_softplus=True, backend=backend), expected) < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_comes_back_in_half_precision(backend: str) -> None:
    inputs = scan_inputs(2, 6, 5, 3)
    halves = {k: v.detach().half() if k in ("u", "delta", "B", "C", "z") else v for k, v in inputs.items()}
    exact = {k: v.double() for k, v in halves.items()}
    out = selective_scan(**halves, delta_softplus=True, backend=backend)

    assert out.dtype == torch.float16
    assert gap(out, selective_scan(**exact, delta_softplus=True, backend="reference")) < 1e-3

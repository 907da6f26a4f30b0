"""Laws of the recurrence that hold for any input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.scan_cases import NAMES, gap, in_double, scan_inputs

from genzoo.kernels import bidirectional_selective_scan, selective_scan

BACKENDS = ["reference", "torch", "cpu"]
FAST = ["torch", "cpu"]
sizes = st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70), st.integers(1, 20))


@settings(max_examples=25, deadline=None)
@given(sizes, st.booleans(), st.sampled_from(FAST), st.integers(0, 1000))
def test_any_size_equals_the_reference(
    size: tuple[int, int, int, int], reverse: bool, backend: str, seed: int
) -> None:
    inputs = {k: v.detach() for k, v in scan_inputs(*size, seed=seed).items()}
    exact = {k: v.double() for k, v in inputs.items()}
    out = selective_scan(**inputs, delta_softplus=True, reverse=reverse, backend=backend)
    expected = selective_scan(**exact, delta_softplus=True, reverse=reverse, backend="reference")
    # a single small output may cancel, so the scale includes a constant
    assert (out.double() - expected).norm() < 3e-7 * (expected.norm() + 1)


@settings(max_examples=15, deadline=None)
@given(sizes, st.sampled_from(FAST))
def test_reverse_is_flip_scan_flip(size: tuple[int, int, int, int], backend: str) -> None:
    inputs = {k: v.detach() for k, v in scan_inputs(*size, dtype=torch.float64).items()}
    flipped = {k: v.flip(1) if k in ("u", "delta", "B", "C", "z") else v for k, v in inputs.items()}
    out = selective_scan(**inputs, delta_softplus=True, reverse=True, backend=backend)
    expected = selective_scan(**flipped, delta_softplus=True, backend=backend).flip(1)
    assert torch.allclose(out, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("backend", FAST)
def test_gradients_pass_gradcheck(backend: str, reverse: bool) -> None:
    inputs = scan_inputs(2, 5, 3, 2, dtype=torch.float64)

    def scan(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        named = dict(zip(NAMES, tensors, strict=True))
        return selective_scan(
            **named, delta_softplus=True, reverse=reverse, return_last_state=True, backend=backend
        )

    assert torch.autograd.gradcheck(scan, tuple(inputs.values()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_never_depend_on_the_future(backend: str) -> None:
    inputs = {k: v.detach() for k, v in scan_inputs(2, 40, 5, 3).items()}
    changed = {k: v.clone() for k, v in inputs.items()}
    for name in ("u", "delta", "B", "C", "z"):
        changed[name][:, 35:] += 1
    before = selective_scan(**inputs, delta_softplus=True, backend=backend)
    after = selective_scan(**changed, delta_softplus=True, backend=backend)
    assert torch.equal(before[:, :35], after[:, :35])
    assert not torch.allclose(before[:, 35:], after[:, 35:])


@pytest.mark.parametrize("backend", FAST)
def test_cutting_a_sequence_and_carrying_the_state_changes_nothing(backend: str) -> None:
    inputs = {k: v.detach() for k, v in scan_inputs(2, 50, 6, 4, dtype=torch.float64).items()}
    rows = ("u", "delta", "B", "C", "z")
    head = {k: v[:, :21] if k in rows else v for k, v in inputs.items()}
    tail = {k: v[:, 21:] if k in rows else v for k, v in inputs.items()}
    whole = selective_scan(**inputs, delta_softplus=True, backend=backend)
    _, state = selective_scan(**head, delta_softplus=True, return_last_state=True, backend=backend)
    second = selective_scan(**tail, delta_softplus=True, backend=backend)
    # what the carried state adds: it decays by the accumulated dt and is read out by C
    dt = torch.nn.functional.softplus(tail["delta"] + tail["delta_bias"]).cumsum(1)
    decayed = torch.exp(dt[..., None] * tail["A"]) * state[:, None]
    carried = (decayed * tail["C"][:, :, None]).sum(-1) * torch.nn.functional.silu(tail["z"])
    assert gap(second + carried, whole[:, 21:]) < 1e-12


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("backend", FAST)
def test_extreme_steps_underflow_cleanly(backend: str, reverse: bool) -> None:
    inputs = scan_inputs(1, 100, 4, 3)
    inputs["delta"] = torch.where(torch.arange(100) % 3 == 0, 500.0, -500.0)[None, :, None].expand(1, 100, 4)
    inputs["delta"] = inputs["delta"].contiguous().requires_grad_()
    inputs["A"] = torch.full((4, 3), -16.0, requires_grad=True)
    exact = in_double(inputs)
    out = selective_scan(**inputs, delta_softplus=True, reverse=reverse, backend=backend)
    expected = selective_scan(**exact, delta_softplus=True, reverse=reverse, backend="reference")
    grads = torch.autograd.grad(out.sum(), list(inputs.values()))
    exact_grads = torch.autograd.grad(expected.sum(), list(exact.values()))
    assert gap(out, expected) < 1e-6
    for name, grad, exact_grad in zip(NAMES, grads, exact_grads, strict=True):
        assert (grad - exact_grad).norm() < 1e-5 * (exact_grad.norm() + 1e-3), name


@pytest.mark.parametrize("backend", FAST)
def test_a_nan_is_not_hidden(backend: str) -> None:
    inputs = {k: v.detach().clone() for k, v in scan_inputs(1, 6, 5, 3).items()}
    inputs["delta"][0, 2, 1] = torch.nan
    out = selective_scan(**inputs, delta_softplus=True, backend=backend)
    assert out[0, 2:, 1].isnan().all()
    assert out[0, :, [0, 2, 3, 4]].isfinite().all()


@pytest.mark.parametrize("backend", FAST)
def test_the_number_of_threads_changes_no_bit(backend: str) -> None:
    inputs = scan_inputs(3, 40, 300, 16)
    results = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            out = selective_scan(**inputs, delta_softplus=True, backend=backend)
            results.append([out, *torch.autograd.grad(out.sum(), list(inputs.values()))])
        finally:
            torch.set_num_threads(before)
    for first, second in zip(*results, strict=True):
        # torch's own reductions may split differently; the C kernels may not
        assert torch.equal(first, second) if backend == "cpu" else gap(first, second) < 1e-6


@pytest.mark.parametrize("backend", FAST)
def test_both_directions_of_a_shared_input_sum_their_gradients(backend: str) -> None:
    inputs = scan_inputs(2, 7, 4, 3, dtype=torch.float64)
    shared = [inputs[name] for name in ("u", "delta", "A", "B", "C", "D")]
    out = bidirectional_selective_scan(*shared, *shared, inputs["z"], delta_softplus=True, backend=backend)
    expected = bidirectional_selective_scan(
        *shared, *shared, inputs["z"], delta_softplus=True, backend="reference"
    )
    for grad, exact in zip(
        torch.autograd.grad(out.sum(), shared), torch.autograd.grad(expected.sum(), shared), strict=True
    ):
        assert gap(grad, exact) < 1e-12

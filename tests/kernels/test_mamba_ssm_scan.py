"""The adapter to the stock mamba_ssm package, against a stand-in with its documented signature and checks."""

from __future__ import annotations

import importlib
import sys
import types
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genzoo.core.errors import BackendUnavailable
from genzoo.kernels import available_backends
from genzoo.kernels.scan import (
    Scan,
    bidirectional_selective_scan,
    choose_backend,
    mamba_ssm_scan,
    selective_scan,
)

BATCH, LENGTH, WIDTH, STATE = 2, 5, 6, 3
reference = partial(selective_scan, backend="reference")


def stock_selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """u, delta, z: (b, d, l); B, C: (b, n, l), (b, g, n, l) or (d, n); the dtype rules of the CUDA kernel."""
    sequences = [t for t in (u, delta, z) if t is not None] + [t for t in (B, C) if t.ndim > 2]
    weights = [t for t in (A, D, delta_bias) if t is not None] + [t for t in (B, C) if t.ndim == 2]
    assert all(t.dtype == u.dtype for t in sequences)
    assert all(t.dtype == torch.float32 for t in weights)
    assert all(t.is_contiguous() and t.shape[-1] == u.shape[-1] for t in sequences)
    assert u.shape[1] == A.shape[0]

    def back(tensor: Tensor | None) -> Tensor | None:
        return tensor if tensor is None or tensor.ndim == 2 else tensor.movedim(-1, 1)

    out, state = reference(
        back(u), back(delta), A, back(B), back(C), D, back(z), delta_bias,
        delta_softplus=delta_softplus, return_last_state=True,
    )  # fmt: skip
    out = out.transpose(1, 2)
    return (out, state) if return_last_state else out


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> None:
    interface = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = stock_selective_scan  # type: ignore[attr-defined]
    interface.selective_scan_cuda = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mamba_ssm", types.ModuleType("mamba_ssm"))
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops", types.ModuleType("mamba_ssm.ops"))
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", interface)


def make_inputs(layout: str = "varying", dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    shape = {
        "varying": (BATCH, LENGTH, STATE),
        "grouped": (BATCH, LENGTH, 2, STATE),
        "constant": (WIDTH, STATE),
    }[layout]
    halves = draw(BATCH, LENGTH, 2 * WIDTH).to(dtype)
    u, z = halves.chunk(2, dim=-1)
    delta, A = draw(BATCH, LENGTH, WIDTH).to(dtype), -torch.rand(WIDTH, STATE, generator=generator) - 0.1
    tensors = [u, delta, A, draw(*shape).to(dtype), draw(*shape).to(dtype), draw(WIDTH), z, draw(WIDTH)]
    return [tensor.detach().requires_grad_() for tensor in tensors]


def record(inputs: list[Tensor]) -> tuple[Scan, Tensor]:
    """The eight tensors as a backend takes them: a scan, and the gate."""
    u, delta, A, B, C, D, z, bias = inputs
    return Scan(u, delta, A, B, C, D, bias), z


@pytest.mark.usefixtures("stock")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("layout", ["varying", "grouped", "constant"])
def test_adapter_agrees_with_the_reference(layout: str, reverse: bool) -> None:
    inputs = make_inputs(layout)
    options = {"delta_softplus": True, "reverse": reverse, "return_last_state": True}
    scan, z = record(inputs)
    out, state = mamba_ssm_scan.one_direction(scan, z=z, softplus=True, reverse=reverse, want_state=True)
    expected, expected_state = reference(*inputs, **options)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(state, expected_state, rtol=1e-6, atol=1e-6)
    assert not state.requires_grad

    weight = torch.linspace(-1.0, 1.0, out.numel()).view_as(out)
    gradients = torch.autograd.grad(out, inputs, weight)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, inputs, weight), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("stock")
def test_optional_tensors_may_be_missing() -> None:
    u, delta, A, B, C, *_ = make_inputs()
    out, state = mamba_ssm_scan.one_direction(
        Scan(u, delta.abs(), A, B, C), z=None, softplus=False, reverse=False
    )
    assert state is None
    torch.testing.assert_close(out, reference(u, delta.abs(), A, B, C), rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("stock")
def test_low_precision_inputs_keep_float32_weights() -> None:
    u, delta, A, B, C, D, z, bias = make_inputs(dtype=torch.bfloat16)
    scan = Scan(u, delta.float(), A.bfloat16(), B, C, D.bfloat16(), bias)
    out, _ = mamba_ssm_scan.one_direction(scan, z=z, softplus=True, reverse=False)
    expected = reference(u, delta, A.bfloat16(), B, C, D.bfloat16(), z, bias, delta_softplus=True)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


@pytest.mark.usefixtures("stock")
def test_both_directions_are_added_before_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mamba_ssm_scan, "unsupported_reason", lambda scan, z: None)
    u, delta, A, B, C, D, z, bias = make_inputs()
    u_b, delta_b, A_b, B_b, C_b, D_b, _, bias_b = make_inputs(seed=1)
    out = bidirectional_selective_scan(
        u, delta, A, B, C, D, u_b, delta_b, A_b, B_b, C_b, D_b, z, bias, bias_b,
        delta_softplus=True, backend="mamba_ssm",
    )  # fmt: skip
    y = reference(u, delta, A, B, C, D, None, bias, delta_softplus=True)
    y_b = reference(u_b, delta_b, A_b, B_b, C_b, D_b, None, bias_b, delta_softplus=True, reverse=True)
    torch.testing.assert_close(out, (y + y_b) * F.silu(z), rtol=1e-6, atol=1e-6)


def test_a_missing_package_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    assert "mamba_ssm cannot be imported" in (mamba_ssm_scan.unavailable_reason() or "")
    with pytest.raises(BackendUnavailable, match="genzoo doctor"):
        mamba_ssm_scan.one_direction(record(make_inputs())[0], z=None, softplus=True, reverse=False)


@pytest.mark.usefixtures("stock")
@pytest.mark.parametrize("built", ["without", "not at all"])
def test_a_package_without_its_cuda_scan_is_unavailable(monkeypatch: pytest.MonkeyPatch, built: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert mamba_ssm_scan.unavailable_reason() is None
    interface = sys.modules["mamba_ssm.ops.selective_scan_interface"]
    if built == "without":  # imported well since July 2026, and raises when it is called
        monkeypatch.setattr(interface, "selective_scan_cuda", None)
    else:
        monkeypatch.delattr(interface, "selective_scan_cuda")
    assert "built without its CUDA scan" in (available_backends()["mamba_ssm"] or "")
    assert choose_backend("auto", "cuda", available_backends().get) != "mamba_ssm"
    with pytest.raises(BackendUnavailable, match="built without its CUDA scan"):
        mamba_ssm_scan.one_direction(record(make_inputs())[0], z=None, softplus=True, reverse=False)


def test_a_library_that_does_not_load_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> types.ModuleType:
        raise OSError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(mamba_ssm_scan.importlib, "import_module", broken)
    assert "libcudart" in (mamba_ssm_scan.unavailable_reason() or "")


@pytest.mark.usefixtures("stock")
def test_cpu_tensors_are_refused_with_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (
        mamba_ssm_scan.unsupported_reason(*record(make_inputs()))
        == "the tensors are on cpu, not on a CUDA device"
    )


@pytest.mark.parametrize(
    "error", [RuntimeError("registered twice"), AttributeError("x"), ValueError("driver")]
)
def test_a_package_that_breaks_while_it_is_imported_costs_only_its_backend(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(name: str, *more: Any) -> Any:
        if name.startswith("mamba_ssm"):
            raise error
        return importlib_import(name, *more)

    importlib_import = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", broken)
    found = available_backends()
    assert str(error) in (found["mamba_ssm"] or "")
    assert found["torch"] is None

"""GELU in C: recorded values and slopes, gradients, special values, and what stays torch's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from golden.speed_cases import SET, TOLERANCE, gap
from torch import Tensor, nn
from torch.nn.functional import gelu

from genzoo.families.car.var.blocks import FeedForward
from genzoo.kernels import gelu as module
from genzoo.kernels.gelu import TanhGelu, gelu_tanh
from genzoo.kernels.native import build
from genzoo.nn.modulation import Mlp

needs_c = pytest.mark.skipif(build.unavailable_reason() is not None, reason="no C compiler on this machine")


@needs_c
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", golden_cases(SET, "gelu"), ids=lambda case: case["name"])
def test_values_and_slopes_equal_golden(case: dict[str, Any], dtype: torch.dtype) -> None:
    tensors = golden_tensors(SET, "gelu", case["name"])
    x = tensors["x"].to(dtype).requires_grad_()
    y = gelu_tanh(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y.dtype == slope.dtype == dtype
    assert gap(y, tensors["y"]) < TOLERANCE[dtype]
    assert gap(slope, tensors["slope"]) < TOLERANCE[dtype]


@needs_c
@pytest.mark.parametrize("shape", [(1,), (255,), (3, 257), (2, 5, 103), (0, 4), ()], ids=str)
def test_every_size_has_torchs_values_and_gradients(shape: tuple[int, ...]) -> None:
    x = 3 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grad = torch.cos(torch.arange(x.numel(), dtype=torch.float64)).view(shape)
    leaf, exact = x.float().requires_grad_(), x.float().double().requires_grad_()
    y, expected = gelu_tanh(leaf), gelu(exact, approximate="tanh")
    torch.testing.assert_close(y.double(), expected, rtol=2e-6, atol=1e-6)
    found, wanted = torch.autograd.grad(y, leaf, grad.float()), torch.autograd.grad(expected, exact, grad)
    torch.testing.assert_close(found[0].double(), wanted[0], rtol=5e-6, atol=2e-6)


@needs_c
def test_rows_of_a_wider_tensor_and_strided_gradients() -> None:
    wide = torch.randn(4, 3, 20, generator=torch.Generator().manual_seed(2))
    x, grad = wide[..., :10].requires_grad_(), wide.transpose(0, 1)[..., 10:].transpose(0, 1)
    y = gelu_tanh(x)
    torch.testing.assert_close(y, gelu(x, approximate="tanh"), rtol=2e-6, atol=1e-6)
    (found,) = torch.autograd.grad(y, x, grad)
    (wanted,) = torch.autograd.grad(gelu(x, approximate="tanh"), x, grad)
    torch.testing.assert_close(found, wanted, rtol=5e-6, atol=2e-6)
    gaps = wide[0, 0, ::3].detach()
    torch.testing.assert_close(gelu_tanh(gaps), gelu(gaps, approximate="tanh"), rtol=2e-6, atol=1e-6)


@needs_c
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_extremes_are_the_identity_zero_and_nan(dtype: torch.dtype) -> None:
    x = torch.tensor([1e4, 3e38, torch.inf, -1e4, -60.0, 0.0, torch.nan], dtype=dtype)
    y = gelu_tanh(x)
    assert torch.equal(y[:3], x[:3])
    assert y[3:6].abs().max() < 1e-30
    assert y[6].isnan()


@needs_c
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_the_perceptrons_use_it_and_transforms_and_compilers_get_torchs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    invoke = module.invoke
    monkeypatch.setattr(module, "invoke", lambda name, *rest: (calls.append(name), invoke(name, *rest)))
    for mlp in (Mlp(6), FeedForward(6, 24)):
        calls.clear()
        mlp(torch.randn(2, 3, 6)).sum().backward()
        assert calls == ["genzoo_gelu"] * 2
    calls.clear()
    x = torch.randn(2, 3)
    expected = gelu(x, approximate="tanh")
    torch.testing.assert_close(torch.func.vmap(gelu_tanh)(x), expected)
    assert torch.equal(torch.compile(gelu_tanh, fullgraph=True, backend="eager")(x), expected)
    traced = torch.jit.trace(gelu_tanh, torch.zeros(2, 3), check_trace=False)
    torch.testing.assert_close(traced(x), expected)
    assert torch.equal(gelu_tanh(x.half()), gelu(x.half(), approximate="tanh"))
    assert calls == []


def test_without_a_compiler_it_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.call, "unavailable_reason", lambda: "no compiler")
    x = torch.randn(5)
    assert torch.equal(gelu_tanh(x), gelu(x, approximate="tanh"))


def test_the_module_is_torchs_kind_and_has_no_weights() -> None:
    layer = TanhGelu()
    assert isinstance(layer, nn.GELU)
    assert layer.approximate == "tanh"
    assert list(layer.state_dict()) == []
    x: Tensor = torch.randn(3)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))

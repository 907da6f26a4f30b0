"""The causal convolution against torch's own, in both directions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.scan_cases import gap

from genzoo.core.errors import BackendUnavailable, ShapeError, UsageError
from genzoo.kernels.causal_conv1d import causal_conv1d

TOLERANCE = {torch.float64: 1e-14, torch.float32: 5e-7, torch.bfloat16: 1e-2}


def expected_conv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, silu: bool) -> torch.Tensor:
    """torch's convolution on transposed, padded inputs."""
    taps = weight.shape[1]
    y = F.conv1d(F.pad(x.transpose(1, 2), (taps - 1, 0)), weight[:, None], bias, groups=x.shape[2])
    return (F.silu(y) if silu else y).transpose(1, 2)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize(
    ("b", "l", "d", "k"), [(2, 5, 8, 3), (1, 130, 70, 4), (3, 1, 5, 4), (2, 7, 3, 1), (1, 3, 4, 6)]
)
def test_equals_torch_convolution(
    b: int, l: int, d: int, k: int, reverse: bool, silu: bool, backend: str, dtype: torch.dtype
) -> None:
    g = torch.Generator().manual_seed(0)
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    x = torch.randn(b, l, 2 * d, generator=g).to(dtype)[..., :d].detach().requires_grad_()
    weight = torch.randn(d, k, generator=g).to(parameter).requires_grad_()
    bias = torch.randn(d, generator=g).to(parameter).requires_grad_()
    weights = torch.randn(b, l, d, generator=g).to(dtype)
    out = causal_conv1d(
        x, weight, bias, reverse=reverse, activation="silu" if silu else None, backend=backend
    )
    grads = torch.autograd.grad(out, (x, weight, bias), weights)

    exact = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    flip = [1] if reverse else []
    expected = expected_conv(exact[0].flip(flip), *exact[1:], silu=silu).flip(flip)
    exact_grads = torch.autograd.grad(expected, exact, weights.double())
    assert out.dtype == dtype
    assert gap(out, expected) < TOLERANCE[dtype]
    for grad, exact_grad in zip(grads, exact_grads, strict=True):
        assert gap(grad, exact_grad) < TOLERANCE[dtype]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 150), st.integers(1, 80), st.integers(1, 5), st.booleans())
def test_backends_agree_on_any_size(b: int, l: int, d: int, k: int, reverse: bool) -> None:
    g = torch.Generator().manual_seed(l)
    x, weight = torch.randn(b, l, d, generator=g), torch.randn(d, k, generator=g)
    outs = [causal_conv1d(x, weight, reverse=reverse, backend=backend) for backend in ("cpu", "torch")]
    assert torch.allclose(*outs, rtol=1e-5, atol=1e-6)


def test_refuses_what_does_not_fit() -> None:
    x, weight = torch.zeros(2, 5, 4), torch.zeros(4, 3)
    with pytest.raises(ShapeError, match="channels-last"):
        causal_conv1d(x[0], weight)
    with pytest.raises(ShapeError, match="weight must be"):
        causal_conv1d(x, torch.zeros(5, 3))
    with pytest.raises(ShapeError, match="bias must be"):
        causal_conv1d(x, weight, torch.zeros(5))
    with pytest.raises(UsageError, match="activation"):
        causal_conv1d(x, weight, activation="relu")
    with pytest.raises(UsageError, match="no convolution backend"):
        causal_conv1d(x, weight, backend="cuda")


def test_without_a_compiler_the_cpu_backend_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path))  # no library that was built before
    monkeypatch.setenv("CC", "there-is-no-such-compiler")
    x, weight = torch.randn(2, 5, 4), torch.randn(4, 3)
    assert torch.equal(causal_conv1d(x, weight), causal_conv1d(x, weight, backend="torch"))
    with pytest.raises(BackendUnavailable, match="no C compiler"):
        causal_conv1d(x, weight, backend="cpu")

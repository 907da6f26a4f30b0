"""The convolution's Triton kernels on the CPU, under Triton's interpreter, against plain torch in float64.

Not collected by itself: `test_triton_interpreter.py` runs it in a process of its own.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from golden.manifest import golden_cases
from golden.speed_cases import SET, check_conv
from torch import Tensor

from genzoo.core.errors import BackendUnavailable
from genzoo.kernels import triton_host
from genzoo.kernels.causal_conv1d import bidirectional_causal_conv1d, causal_conv1d
from genzoo.kernels.conv import triton_conv
from genzoo.kernels.conv.triton_kernels import row_offset

CHUNK = 6


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several programs along both axes at sizes that the interpreter can afford."""
    monkeypatch.setattr(triton_conv, "CHUNK", CHUNK)
    monkeypatch.setattr(triton_conv, "LANES", 4)


def make_inputs(
    b: int, l: int, d: int, k: int, *, bias: bool = True, dtype: torch.dtype = torch.float32
) -> list[Tensor | None]:
    """x, a part of a wider tensor, then weight and bias of both directions."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(b, l, 2 * d + 1, generator=g).to(dtype)[..., 1 : d + 1]
    parameters = [torch.randn(shape, generator=g) for shape in 2 * [(d, k), (d,)]]
    return [x, *(p if bias or p.ndim == 2 else None for p in parameters)]


def gradients_of(
    tensors: list[Tensor | None], grads: list[Tensor], **options: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """Both outputs, and the gradients of all tensors that are there."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    outs = bidirectional_causal_conv1d(*leaves, **options)  # type: ignore[arg-type]
    wanted = [leaf for leaf in leaves if leaf is not None]
    return list(outs), list(torch.autograd.grad(outs, wanted, grads))


def relative_error(value: Tensor, expected: Tensor) -> float:
    return float(
        (value.detach().double() - expected.detach()).norm() / expected.detach().norm().clamp_min(1e-30)
    )


def assert_parity(tensors: list[Tensor | None], tolerance: float, activation: str | None = "silu") -> None:
    x = tensors[0]
    assert x is not None
    g = torch.Generator().manual_seed(1)
    # strided rows, as the scan's gradients may have
    grads = list(torch.randn(*x.shape[:2], 2 * x.shape[2], generator=g).to(x.dtype).chunk(2, dim=2))
    outs, found = gradients_of(tensors, grads, activation=activation, backend="triton")
    exact = [None if t is None else t.double() for t in tensors]
    expected, wanted = gradients_of(
        exact, [grad.double() for grad in grads], activation=activation, backend="torch"
    )
    assert [t.dtype for t in found] == [t.dtype for t in tensors if t is not None]
    errors = [relative_error(a, b) for a, b in zip(outs + found, expected + wanted, strict=True)]
    assert max(errors) < tolerance, errors


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("taps", "length"),
    [(1, 7), (2, 1), (3, 2), (4, CHUNK - 1), (5, CHUNK), (6, CHUNK + 1), (7, 6), (8, 2 * CHUNK + 1)],
)
def test_outputs_and_gradients_agree_with_torch(taps: int, length: int) -> None:
    assert_parity(make_inputs(2, length, 5, taps), 5e-7)


@pytest.mark.usefixtures("small_chunks")
def test_without_bias_and_activation() -> None:
    assert_parity(make_inputs(1, 9, 3, 4, bias=False), 5e-7, activation=None)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_rounded_once(dtype: torch.dtype) -> None:
    # a unit in the last place, not half: where a GPU rounds to bfloat16, the interpreter cuts off
    assert_parity(make_inputs(1, 8, 5, 4, dtype=dtype), torch.finfo(dtype).eps)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("reverse", [False, True])
def test_one_direction_is_its_half_of_both(reverse: bool) -> None:
    x, *parameters = make_inputs(2, 8, 5, 3)
    weight, bias = (p.requires_grad_() for p in parameters[2 * reverse : 2 * reverse + 2])  # type: ignore[union-attr]
    assert x is not None
    both = bidirectional_causal_conv1d(x, *parameters, backend="triton")[reverse]  # type: ignore[arg-type]
    alone = causal_conv1d(x, weight, bias, reverse=reverse, backend="triton")
    assert torch.equal(alone, both)
    grad = torch.randn(alone.shape, generator=torch.Generator().manual_seed(1))
    for g, expected in zip(
        torch.autograd.grad(alone, (weight, bias), grad),
        torch.autograd.grad(both, (weight, bias), grad),
        strict=True,
    ):
        assert torch.equal(g, expected)


@pytest.mark.usefixtures("small_chunks")
def test_only_one_output_needs_to_be_used() -> None:
    leaves = [t.requires_grad_() if t is not None else None for t in make_inputs(1, 7, 3, 3)]
    out, _ = bidirectional_causal_conv1d(*leaves, backend="triton")  # type: ignore[arg-type]
    grads = torch.autograd.grad(out.sum(), leaves[1:], allow_unused=True)  # type: ignore[arg-type]
    assert [g is None or not g.any() for g in grads] == [False, False, True, True]


@pytest.mark.usefixtures("small_chunks")
def test_two_runs_give_the_same_bits() -> None:
    tensors = make_inputs(2, 7, 5, 4)
    grads = [torch.ones(2, 7, 5)] * 2
    first, second = (gradients_of(tensors, grads, backend="triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first[0] + first[1], second[0] + second[1], strict=True))


@pytest.mark.parametrize("empty", ["batch", "length"])
def test_nothing_is_launched_for_an_empty_tensor(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    def refuse(module: str, name: str) -> None:
        raise AssertionError("launched")

    monkeypatch.setattr(triton_host, "kernel", refuse)
    tensors = make_inputs(2, 5, 3, 4)
    assert tensors[0] is not None
    tensors[0] = tensors[0][:0] if empty == "batch" else tensors[0][:, :0]
    outs, grads = gradients_of(tensors, [torch.empty_like(tensors[0])] * 2, backend="triton")
    assert [t.shape for t in outs] == [tensors[0].shape] * 2
    assert not any(grad.any() for grad in grads)


def test_the_custom_op_has_a_correct_fake_kernel_and_autograd() -> None:
    x, weight, bias, weight_b, _ = (None if t is None else t.detach() for t in make_inputs(1, 3, 2, 2))
    tensors = [t.requires_grad_() for t in (weight, bias, weight_b)]  # type: ignore[union-attr]
    assert x is not None
    arguments = (x.requires_grad_(), tensors, [True, True, True, False], True)
    torch.library.opcheck(triton_conv.conv_op, arguments, atol=1e-6, rtol=1e-5)


def test_compiled_and_autocast_calls_give_the_same() -> None:
    tensors = [t for t in make_inputs(1, 4, 3, 2) if t is not None]

    def layer(*leaves: Tensor) -> Tensor:
        return torch.cat(bidirectional_causal_conv1d(*leaves, backend="triton"), dim=2)

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    results = []
    for function, enabled in ((layer, False), (compiled, True)):
        leaves = [t.detach().requires_grad_() for t in tensors]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = function(*leaves)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    torch.testing.assert_close(*results, rtol=0, atol=0)


@triton.jit
def store_offset(out, batch, row, batch_stride, row_stride):
    tl.store(out, row_offset(tl.cast(batch, tl.int64), row, (batch_stride, row_stride)))


@pytest.mark.parametrize(
    ("batch", "row", "strides"),
    [(0, 932_068, (2304, 2304)), (3, 2, (2**30, 2304)), (40_000, 1_000_000, (2_147_483_000, 4608))],
)
def test_offsets_pass_two_to_the_31(batch: int, row: int, strides: tuple[int, int]) -> None:
    out = torch.zeros(1, dtype=torch.int64)
    store_offset[(1,)](out, batch, row, *strides)
    assert out.item() == batch * strides[0] + row * strides[1]


def test_more_than_eight_taps_are_refused_by_name_and_left_to_others_by_auto() -> None:
    x, weight = torch.zeros(1, 4, 3), torch.zeros(3, 9)
    with pytest.raises(
        BackendUnavailable, match="convolution backend 'triton' cannot run this call"
    ) as error:
        causal_conv1d(x, weight, backend="triton")
    assert "9 taps, at most 8" in str(error.value)
    with pytest.raises(BackendUnavailable, match="float64"):
        causal_conv1d(x.double(), weight[:, :4].double(), backend="triton")
    assert causal_conv1d(x, weight).shape == x.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", golden_cases(SET, "conv"), ids=lambda case: case["name"])
def test_kernels_equal_golden(case: dict[str, Any], dtype: torch.dtype) -> None:
    check_conv(case, "triton", dtype)

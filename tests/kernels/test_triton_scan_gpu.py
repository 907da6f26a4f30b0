"""The Triton backend on a real GPU: parity with the float64 reference, tuning, determinism, compilation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from genzoo.kernels.scan import (
    bidirectional_selective_scan,
    selective_scan,
    triton_configs,
    triton_op,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def make_inputs(
    shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32, seed: int = 0
) -> list[Tensor]:
    batch, length, width, d_state = shape
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    u, z = draw(batch, length, 2 * width).to("cuda", dtype).chunk(2, dim=-1)
    B, C = draw(batch, length, 2 * d_state).to("cuda", dtype).chunk(2, dim=-1)
    A = -3 * torch.rand(width, d_state, generator=generator) - 0.1
    delta = draw(batch, length, width).to("cuda", dtype)
    return [u, delta, A.cuda(), B, C, draw(width).cuda(), z, draw(width).cuda()]


def both_directions(shape: tuple[int, int, int, int], dtype: torch.dtype) -> list[Tensor]:
    u, delta, A, B, C, D, z, bias = make_inputs(shape, dtype)
    u_b, delta_b, A_b, B_b, C_b, D_b, _, bias_b = make_inputs(shape, dtype, seed=1)
    return [u, delta, A, B, C, D, u_b, delta_b, A_b, B_b, C_b, D_b, z, bias, bias_b]


def relative_error(value: Tensor, expected: Tensor) -> float:
    expected = expected.detach()
    return float((value.detach().double() - expected).norm() / expected.norm())


def run(
    function: Callable[..., Any], tensors: Sequence[Tensor], **options: Any
) -> tuple[Tensor, list[Tensor]]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    out = function(*leaves, **options)
    cotangent = torch.sin(torch.arange(out.numel(), device=out.device)).view_as(out).to(out.dtype)
    return out, list(torch.autograd.grad(out, leaves, cotangent))


# float32: a thousand roundings of 6e-8; the others: half a unit in the last place of the results
TOLERANCES = {torch.float32: (1e-6, 5e-6), torch.bfloat16: (2**-8, 2**-8), torch.float16: (2**-11, 2**-11)}


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("shape", [(2, 257, 96, 16), (1, 1, 5, 3), (3, 70, 33, 130)])
@pytest.mark.parametrize("whole", [False, True], ids=["split", "whole"])
def test_both_directions_agree_with_the_reference(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int, int], dtype: torch.dtype, whole: bool
) -> None:
    if whole:  # such small scans are cut in chunks by themselves
        monkeypatch.setattr(triton_op, "pick_split", lambda *where: triton_configs.Split())
    tensors = both_directions(shape, dtype)
    out, gradients = run(bidirectional_selective_scan, tensors, delta_softplus=True, backend="triton")
    exact = [tensor.double() for tensor in tensors]
    expected, wanted = run(bidirectional_selective_scan, exact, delta_softplus=True, backend="reference")
    output_error, gradient_error = TOLERANCES[dtype]
    assert relative_error(out, expected) < output_error
    pairs = [(g, w) for g, w in zip(gradients, wanted, strict=True) if w.any()]
    assert max(relative_error(g, w) for g, w in pairs) < gradient_error


@pytest.mark.parametrize("reverse", [False, True])
def test_one_direction_agrees_with_the_reference(reverse: bool) -> None:
    tensors = make_inputs((2, 100, 48, 16))
    options = {"delta_softplus": True, "reverse": reverse}
    out, gradients = run(selective_scan, tensors, backend="triton", **options)
    exact = [tensor.double() for tensor in tensors]
    expected, wanted = run(selective_scan, exact, backend="reference", **options)
    assert relative_error(out, expected) < 1e-6
    assert max(relative_error(g, w) for g, w in zip(gradients, wanted, strict=True)) < 5e-6


def test_auto_chooses_triton_for_cuda_tensors() -> None:
    tensors = make_inputs((1, 9, 8, 4))
    automatic = selective_scan(*tensors, delta_softplus=True)
    torch.testing.assert_close(
        automatic, selective_scan(*tensors, delta_softplus=True, backend="triton"), rtol=0, atol=0
    )


def test_every_candidate_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = make_inputs((2, 65, 40, 16))
    results = []
    for number in range(4):
        monkeypatch.setattr(
            triton_op, "pick_tiles", lambda key, tiles, launch, n=number: tiles[min(n, len(tiles) - 1)]
        )
        results.append(run(selective_scan, tensors, delta_softplus=True, backend="triton"))
    for out, gradients in results[1:]:
        assert relative_error(out, results[0][0].double()) < 1e-6
        assert (
            max(relative_error(g, w.double()) for g, w in zip(gradients, results[0][1], strict=True)) < 5e-6
        )


def test_deterministic_mode_repeats_bit_for_bit_and_never_measures() -> None:
    tensors = both_directions((2, 130, 64, 16), torch.bfloat16)
    torch.use_deterministic_algorithms(True)
    try:
        before = dict(triton_configs._measured)
        runs = [
            run(bidirectional_selective_scan, tensors, delta_softplus=True, backend="triton")
            for _ in range(2)
        ]
    finally:
        torch.use_deterministic_algorithms(False)
    assert triton_configs._measured == before
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)


def test_compiled_code_gives_the_same() -> None:
    tensors = make_inputs((2, 40, 32, 16))
    expected = run(selective_scan, tensors, delta_softplus=True, backend="triton")
    compiled = torch.compile(partial(selective_scan, backend="triton"), fullgraph=True)
    torch.testing.assert_close(run(compiled, tensors, delta_softplus=True), expected, rtol=1e-6, atol=1e-6)

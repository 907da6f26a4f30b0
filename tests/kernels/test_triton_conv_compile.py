"""Compiles the Triton kernels of the convolution and of GELU for GPUs, and counts registers and spills."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from kernels.triton_compiler import CAPABILITIES, Compiler, resources
from torch import Tensor

from genzoo.kernels import triton_host
from genzoo.kernels.conv import triton_conv
from genzoo.kernels.gelu import gelu_and_bias_gradient

pytest.importorskip("triton", reason="Triton has no wheels for this platform")
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET", "0") == "1", reason="the interpreter replaces the compiler"
)


@pytest.fixture(params=CAPABILITIES, ids=[f"sm_{n}" for n in CAPABILITIES])
def compiler(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Compiler]:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
    stand_in = Compiler(request.param)
    monkeypatch.setattr(triton_host, "kernel", stand_in)
    return stand_in


def make_inputs(shape: tuple[int, int, int], taps: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """x, a half of a wider tensor, weight and bias."""
    x = torch.zeros(*shape[:2], 2 * shape[2], dtype=dtype)[..., : shape[2]]
    tensors = (x, torch.zeros(shape[2], taps), torch.zeros(shape[2]))
    return tuple(t.detach().requires_grad_() for t in tensors)  # type: ignore[return-value]


# registers of a program of one warp: at 96, 21 warps share a multiprocessor, at 168 still 12
@pytest.mark.parametrize(("taps", "registers"), [(4, (96, 128)), (8, (128, 255))])
def test_both_directions_compile_without_spills(
    compiler: Compiler, taps: int, registers: tuple[int, int], tmp_path: Path
) -> None:
    x, weight, bias = make_inputs((2, 256, 2304), taps, torch.bfloat16)
    outs = triton_conv.both_directions(x, weight, bias, weight, bias, silu=True)
    torch.autograd.backward(outs, [torch.zeros_like(out) for out in outs])
    for compiled, limit in zip(compiler.compiled, (*registers, 64), strict=True):
        assert f"sm_{compiler.capability}" in compiled.asm["ptx"]
        used = resources(compiled, tmp_path)
        assert used["REG"] <= limit, used
        assert used["STACK"] == 0, used


def test_the_gradient_of_gelu_compiles_without_spills(compiler: Compiler, tmp_path: Path) -> None:
    h = torch.zeros(300, 4608, dtype=torch.bfloat16)
    gelu_and_bias_gradient(h, h, torch.zeros(4608))
    used = resources(compiler.compiled[0], tmp_path)
    assert f"sm_{compiler.capability}" in compiler.compiled[0].asm["ptx"]
    assert used["REG"] <= 128, used
    assert used["STACK"] == 0, used


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_one_direction_and_odd_sizes_compile(compiler: Compiler, dtype: torch.dtype) -> None:
    for reverse, shape, taps in ((False, (1, 1, 1), 1), (True, (3, 7, 33), 3)):
        x, weight, _ = make_inputs(shape, taps, dtype)
        out = triton_conv.one_direction(x, weight, None, silu=False, reverse=reverse)
        out.backward(torch.zeros_like(out))
    assert len(compiler.compiled) == 6

"""Compiles the fused residual and norm for real GPUs without one, and counts registers and spills."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from kernels.triton_compiler import CAPABILITIES, Compiler, resources
from torch import Tensor

from genzoo.kernels import triton_host
from genzoo.kernels.adaln import triton_adaln

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


def make_inputs(width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x in float32, then gate, branch, shift and scale, the three chunks of one modulation."""
    gate, shift, scale = (t.detach() for t in torch.zeros(2, 3 * width, dtype=dtype).chunk(3, dim=1))
    x, branch = torch.zeros(2, 32, width), torch.zeros(2, 32, width, dtype=dtype)
    return tuple(t.requires_grad_() for t in (x, gate, branch, shift, scale))  # type: ignore[return-value]


@pytest.mark.parametrize("width", [1152, 4096])
def test_residual_and_norm_compile_without_spills(compiler: Compiler, width: int, tmp_path: Path) -> None:
    outs = triton_adaln.gated_residual_norm(
        *make_inputs(width, torch.bfloat16), eps=1e-6, out_dtype=torch.bfloat16
    )
    torch.autograd.backward(outs, [torch.zeros_like(out) for out in outs])
    for compiled, limit in zip(compiler.compiled, (64, 200, 64), strict=True):
        assert f"sm_{compiler.capability}" in compiled.asm["ptx"]
        used = resources(compiled, tmp_path)
        assert used["REG"] <= limit, used
        assert used["STACK"] == 0, used


@pytest.mark.parametrize("width", [1, 384])
def test_each_half_and_odd_sizes_compile(compiler: Compiler, width: int) -> None:
    x, gate, branch, shift, scale = make_inputs(width, torch.float16)
    out = triton_adaln.modulated_norm(x, shift, scale, eps=1e-6, out_dtype=torch.float32)
    out.backward(torch.zeros_like(out))
    x1 = triton_adaln.gated_residual(x, gate, branch)
    x1.backward(torch.zeros_like(x1))
    assert len(compiler.compiled) == 6

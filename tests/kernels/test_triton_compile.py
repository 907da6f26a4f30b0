"""Compiles the Triton kernels for real GPUs without one: what the interpreter cannot see fails here.

The host code runs as in production up to the launch, with CPU tensors; the launch compiles down to machine
code for the arguments it was given, as Triton's own launcher would specialise them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kernels.triton_compiler import CAPABILITIES, Compiler, resources
from torch import Tensor

from genzoo.kernels import triton_host
from genzoo.kernels.halves import mark_room
from genzoo.kernels.scan import Scan, triton_op, triton_scan
from genzoo.kernels.scan.triton_configs import Split, backward_tiles, forward_tiles, padded_state

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


def make_inputs(dtype: torch.dtype, shape: tuple[int, int, int, int]) -> tuple[Scan, Tensor]:
    batch, length, width, d_state = shape
    u, z = torch.zeros(batch, length, 2 * width, dtype=dtype).chunk(2, dim=-1)
    B, C = torch.zeros(batch, length, 2 * d_state, dtype=dtype).chunk(2, dim=-1)
    delta = torch.zeros(batch, length, width, dtype=dtype)
    tensors = [u, delta, torch.zeros(width, d_state), B, C, torch.zeros(width), torch.zeros(width), z]
    *fields, z = (tensor.detach().requires_grad_() for tensor in tensors)
    return Scan(*fields), z


def assert_time_stays_in_a_thread(compiled: Any) -> None:
    """Every scan's layout has one lane and one warp along its first axis, or the scan would shuffle."""
    text = compiled.asm["ttgir"]
    layouts = {
        name: ([int(n) for n in lanes.split(",")], [int(n) for n in warps.split(",")])
        for name, lanes, warps in re.findall(
            r"^(#\w+) = #ttg\.blocked<\{.*?threadsPerWarp = \[([\d, ]+)\], warpsPerCTA = \[([\d, ]+)\]",
            text,
            re.M,
        )
    }
    scans = re.findall(r"\"tt\.scan\".*?\}\) : \(tensor<[^>]*?, (#\w+)>", text, re.S)
    assert scans
    assert all((lanes[0], warps[0]) == (1, 1) for lanes, warps in (layouts[name] for name in scans))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_both_directions_with_gradients_compile(
    compiler: Compiler, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the default tiles in bf16 on sm_90 and later, others elsewhere
    number = int((dtype == torch.bfloat16) == (compiler.capability == 80))
    monkeypatch.setattr(triton_op, "pick_tiles", lambda key, candidates, launch: candidates[number])
    scan, z = make_inputs(dtype, (2, 48, 64, 16))
    out = triton_scan.both_directions(scan, scan, z=z, softplus=True)
    out.backward(torch.zeros_like(out))
    forward, backward, sums = compiler.compiled
    assert len(sums.asm["cubin"]) > 0
    for compiled in (forward, backward):
        assert len(compiled.asm["cubin"]) > 0
        assert f"sm_{compiler.capability}" in compiled.asm["ptx"]
        assert_time_stays_in_a_thread(compiled)


@pytest.mark.parametrize("compiler", [90], indirect=True, ids=["sm_90"])
def test_a_gradient_of_z_beside_room_compiles(compiler: Compiler) -> None:
    scan, z = make_inputs(torch.bfloat16, (2, 48, 64, 16))
    out = triton_scan.both_directions(scan, scan, z=mark_room(z), softplus=True)
    out.backward(torch.zeros_like(out))
    assert z.grad is not None
    assert z.grad.shape == z.shape
    assert len(compiler.compiled) == 3


def test_every_pass_of_a_split_scan_compiles(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(triton_op, "pick_split", lambda *where: Split(steps=64, apart=True))
    scan, z = make_inputs(torch.bfloat16, (1, 256, 768, 16))
    out = triton_scan.both_directions(scan, scan, z=z, softplus=True)
    out.backward(torch.zeros_like(out))
    states, forward, join, adjoints, backward, _ = compiler.compiled
    for compiled in (states, forward, adjoints, backward):
        assert_time_stays_in_a_thread(compiled)
    for compiled in (states, forward, join, adjoints):
        assert resources(compiled, tmp_path)["STACK"] == 0


def test_sizes_of_one_and_missing_tensors_compile(compiler: Compiler) -> None:
    """Triton turns every argument that equals 1 into a constant, and drops branches of absent tensors."""
    scan, _ = make_inputs(torch.float16, (1, 1, 1, 1))
    bare = scan._replace(D=None, delta_bias=None)
    out, _ = triton_scan.one_direction(bare, z=None, softplus=False, reverse=True, want_state=True)
    out.backward(torch.zeros_like(out))
    assert len(compiler.compiled) == 3


@pytest.mark.parametrize("compiler", [90], indirect=True, ids=["sm_90"])
@pytest.mark.parametrize("d_state", [1, 64, 200])
def test_other_state_sizes_compile(compiler: Compiler, d_state: int) -> None:
    scan, z = make_inputs(torch.bfloat16, (2, 33, 48, d_state))
    with torch.no_grad():
        triton_scan.one_direction(scan, z=z, softplus=True, reverse=False)
    assert_time_stays_in_a_thread(compiler.compiled[0])


@pytest.mark.parametrize("d_state", [1, 2, 3, 8, 16, 17, 64, 128, 256])
def test_every_candidate_keeps_the_time_axis_in_a_thread(d_state: int) -> None:
    states = padded_state(d_state)
    assert states >= d_state
    assert states & (states - 1) == 0
    for tiles in (*forward_tiles(states), *backward_tiles(states)):
        assert tiles.lanes * states * tiles.groups >= 32 * tiles.warps
        assert all(n >= 1 and n & (n - 1) == 0 for n in (tiles.groups, tiles.lanes, tiles.rows, tiles.warps))

"""What a GPU computes in few launches, by the Triton kernels on the CPU under Triton's interpreter.

Not collected by itself: `test_triton_interpreter.py` runs it in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genzoo.kernels import gelu, halves
from genzoo.kernels.adaln import triton_adaln
from genzoo.kernels.conv import triton_conv
from genzoo.kernels.scan import Scan, triton_op, use_backend
from genzoo.kernels.scan.triton_configs import Tiles
from genzoo.kernels.scan.triton_launch import gradient_buffers
from genzoo.nn import few_launches, modulation
from genzoo.nn.blocks import MambaBlock
from genzoo.nn.mamba import MambaMixer


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles, which the interpreter can afford, and the forms of a GPU."""
    monkeypatch.setattr(triton_op, "pick_tiles", lambda key, candidates, launch: Tiles(1, 8, 4, 1))
    monkeypatch.setattr(triton_adaln, "ROWS", 3)
    monkeypatch.setattr(modulation, "kernels_for", lambda x: triton_adaln)
    use_forms(monkeypatch, True)


def use_forms(monkeypatch: pytest.MonkeyPatch, fused: bool) -> None:
    for module in (few_launches, modulation):
        monkeypatch.setattr(module, "on_gpu", lambda x: fused)


def both_forms(monkeypatch: pytest.MonkeyPatch, call: Callable[[Tensor], Tensor], *leaves: Tensor) -> Any:
    """Result and gradients of call(leaves[0]), plain and in few launches."""
    results = []
    for fused in (False, True):
        use_forms(monkeypatch, fused)
        out = call(leaves[0])
        results.append([out, *torch.autograd.grad(out.float().square().sum(), leaves)])
    return results


def relative_errors(results: Any) -> list[float]:
    return [
        float((a.double() - b.double()).detach().norm() / b.detach().double().norm().clamp_min(1e-30))
        for b, a in zip(*results, strict=True)
    ]


@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=str)
def test_a_block_computes_the_same(monkeypatch: pytest.MonkeyPatch, precision: torch.dtype | None) -> None:
    torch.manual_seed(0)
    block, x, c = MambaBlock(8, d_state=2), torch.randn(2, 3, 8).requires_grad_(), torch.randn(2, 8)
    nn.init.normal_(block.adaLN_modulation[1].weight)  # type: ignore[arg-type]

    def call(x: Tensor) -> Tensor:
        with (
            use_backend("triton"),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is not None),
        ):
            return block(x, c)  # type: ignore[no-any-return]

    results = both_forms(monkeypatch, call, x, *block.parameters())
    assert max(relative_errors(results)) < (1e-5 if precision is None else 3e-2)
    assert [a.dtype for a in results[0]] == [a.dtype for a in results[1]]


def test_gradients_of_x_and_z_are_written_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scan's gradient and the convolution's fill one buffer; nothing is copied together."""
    torch.manual_seed(0)
    mixer, x = MambaMixer(4, d_state=2), torch.randn(2, 3, 4).requires_grad_()
    buffers: list[Tensor] = []
    find = halves.buffer_of
    monkeypatch.setattr(triton_conv, "buffer_of", lambda half: buffers.append(find(half)) or buffers[-1])
    seen: list[Tensor] = []
    mixer.in_proj.register_forward_hook(lambda module, inputs, out: out.register_hook(seen.append) and None)
    with use_backend("triton"):
        results = both_forms(monkeypatch, mixer, x, *mixer.parameters())
    assert len(buffers) == 1
    plain, written = seen
    assert written.data_ptr() == buffers[0].data_ptr()
    assert (written - plain).norm() < 1e-6 * plain.norm()
    assert max(relative_errors(results)) < 1e-5


@pytest.mark.parametrize("use", ["twice", "elsewhere", "not at all"])
def test_a_half_that_others_read_too_is_copied(use: str) -> None:
    """Only the scan's own gradient of z has room beside it: another is never written into."""
    generator = torch.Generator().manual_seed(0)
    xz, parameters = torch.randn(2, 5, 8, generator=generator), [torch.randn(4, 3, generator=generator)] * 2
    delta, A = torch.rand(2, 5, 4, generator=generator), -torch.rand(4, 2, generator=generator)
    B = torch.randn(2, 5, 2, generator=generator)

    def run(fused: bool) -> Tensor:
        leaf = xz.clone().requires_grad_()
        if fused:
            u, u_b, z = triton_conv.beside_gate(leaf, parameters[0], None, parameters[1], None)
        else:
            x, z = leaf.chunk(2, dim=-1)
            u, u_b = triton_conv.both_directions(x, parameters[0], None, parameters[1], None, silu=True)
        gate = None if use != "twice" else z
        y = triton_op.scan_op(
            [u, delta, A, B, B, *([z] if gate is not None else [])],
            [True] * 5 + [False, False, gate is not None],
            False,
            False,
            True,
            False,
        )[0]
        extra = z.sin().sum() if use != "not at all" else 0.0
        return torch.autograd.grad(y.square().sum() + u_b.square().sum() + extra, leaf)[0]

    torch.testing.assert_close(run(True), run(False), rtol=1e-5, atol=1e-6)


def test_a_norm_adds_the_gradient_of_what_reads_beside_it() -> None:
    torch.manual_seed(0)
    x, shift, scale = torch.randn(4, 5, 9), torch.randn(2, 9), torch.randn(2, 9)
    results = []
    for used in ((True, True), (True, False), (False, True)):
        for form in ("pass", "plain"):
            leaves = [t.clone().requires_grad_() for t in (x, shift, scale)]
            options = {"eps": 1e-6, "out_dtype": torch.float32}
            if form == "pass":
                out, passed = triton_adaln.norm_and_pass(*leaves, **options)
                assert torch.equal(passed, x)
            else:
                out, passed = triton_adaln.modulated_norm(*leaves, **options), leaves[0]
            loss = used[0] * out.square().sum() + used[1] * passed.sin().sum()
            results.append(torch.autograd.grad(loss, leaves))
    for found, plain in zip(results[::2], results[1::2], strict=True):
        for a, b in zip(found, plain, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (9, 4)], ids=str)
def test_gradients_of_gelu_and_bias_agree_with_float64(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    for name, size in {"CHUNK": 4, "ROWS": 2, "COLUMNS": 4}.items():
        monkeypatch.setattr(gelu, name, size)
    generator = torch.Generator().manual_seed(0)
    h, grad = (3 * torch.randn(2, *shape, generator=generator)).to(dtype)
    dh, grad_bias = gelu.gelu_and_bias_gradient(h, grad, torch.zeros(shape[1]))
    exact = torch.ops.aten.gelu_backward(grad.double(), h.double(), approximate="tanh")
    assert (dh.dtype, grad_bias.dtype) == (dtype, torch.float32)
    # a unit in the last place, not half: where a GPU rounds to bfloat16, the interpreter cuts off
    assert (dh - exact).norm() < max(2 * torch.finfo(dtype).eps, 5e-6) * exact.norm()
    assert (grad_bias - exact.sum(0)).norm() < 1e-5 * exact.norm()


def test_parts_of_dB_and_dC_are_bfloat16_where_the_sums_are() -> None:
    for dtype, expected in ((torch.bfloat16,) * 2, (torch.float16, torch.float32), (torch.float32,) * 2):
        u, B = torch.zeros(1, 3, 4, dtype=dtype), torch.zeros(1, 3, 2, dtype=dtype)
        scan = Scan(u, u, torch.zeros(4, 2), B, B)
        parts = gradient_buffers(scan, Tiles(1, 2, 4, 1), 1)[2:5]
        assert [part.dtype for part in parts if part is not None] == [torch.float32, expected, expected]

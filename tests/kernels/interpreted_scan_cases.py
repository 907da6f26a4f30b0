"""Parity of the Triton kernels on the CPU, under Triton's interpreter.

Not collected by itself: Triton decides when it is imported whether to interpret, so
`test_triton_interpreter.py` runs this file in a process of its own with TRITON_INTERPRET=1. The oracle is the
reference in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from golden.manifest import golden_cases, golden_tensors
from torch import Tensor

from genzoo.kernels import triton_host
from genzoo.kernels.scan import (
    Scan,
    bidirectional_selective_scan,
    selective_scan,
    triton_configs,
    triton_op,
    triton_scan,
    triton_tiles,
)
from genzoo.kernels.scan.record import pack
from genzoo.kernels.scan.triton_configs import Split, Tiles

triton_one, exact_one = (partial(selective_scan, backend=name) for name in ("triton", "reference"))
triton_both, exact_both = (
    partial(bidirectional_selective_scan, backend=name) for name in ("triton", "reference")
)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter pays for every padded channel; the real tile sizes have tests of their own."""

    def pick(key: tuple[object, ...], candidates: list[Tiles], launch: object) -> Tiles:
        return Tiles(groups=2 if key[0] == "backward" else 1, lanes=2, rows=4, warps=1)

    monkeypatch.setattr(triton_op, "pick_tiles", pick)


def make_inputs(
    batch: int, length: int, width: int, d_state: int, *, dtype: torch.dtype = torch.float32, seed: int = 0
) -> list[Tensor]:
    """The scan's eight tensors; u and z halves of one tensor, B and C parts of another, as in the mixer."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    u, z = draw(batch, length, 2 * width).to(dtype).chunk(2, dim=-1)
    _, B, C = draw(batch, length, 2 + 2 * d_state).to(dtype).split([2, d_state, d_state], dim=-1)
    A = -3 * torch.rand(width, d_state, generator=generator) - 0.1
    return [u, draw(batch, length, width).to(dtype), A, B, C, draw(width), z, draw(width)]


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Relative L2, absolute where the expectation is zero (the gradient of A at length 1)."""
    expected = expected.detach()
    difference = (value.detach().double() - expected.double()).norm()
    return (
        float(difference / expected.double().norm().clamp(min=1e-30)) if expected.any() else float(difference)
    )


def gradients_of(
    function: object, tensors: Sequence[Tensor | None], **options: bool
) -> tuple[Tensor, dict[int, Tensor]]:
    """Output and gradients by position, under a fixed cotangent."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    out = function(*leaves, **options)  # type: ignore[operator]
    cotangent = torch.sin(torch.arange(out.numel(), dtype=torch.float64)).view_as(out).to(out.dtype)
    given = [i for i, t in enumerate(leaves) if t is not None]
    found = torch.autograd.grad(out, [leaves[i] for i in given], cotangent)  # type: ignore[misc]
    return out, dict(zip(given, found, strict=True))


def assert_parity(
    function: object,
    oracle: object,
    tensors: Sequence[Tensor | None],
    *,
    output_error: float = 4e-7,
    gradient_error: float = 2e-6,
    **options: bool,
) -> None:
    out, gradients = gradients_of(function, tensors, **options)
    exact = [None if t is None else t.double() for t in tensors]
    expected, wanted = gradients_of(oracle, exact, **options)
    assert relative_error(out, expected) < output_error
    errors = {i: relative_error(gradients[i], wanted[i]) for i in wanted}
    assert max(errors.values()) < gradient_error, errors
    assert all(gradients[i].dtype == tensors[i].dtype for i in gradients)  # type: ignore[union-attr]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(2, 5, 6, 3), (1, 1, 4, 5), (2, 4, 7, 1), (1, 6, 3, 16)])
def test_one_direction_agrees_with_the_reference(shape: tuple[int, int, int, int], reverse: bool) -> None:
    assert_parity(
        triton_one,
        exact_one,
        make_inputs(*shape),
        delta_softplus=True,
        reverse=reverse,
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_states_are_recomputed_across_segments(monkeypatch: pytest.MonkeyPatch, reverse: bool) -> None:
    monkeypatch.setattr(triton_configs, "SEGMENT", 8)
    inputs = make_inputs(1, 19, 3, 4)
    assert_parity(triton_one, exact_one, inputs, delta_softplus=True, reverse=reverse)


def test_bidirectional_agrees_with_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_configs, "SEGMENT", 8)
    u, delta, A, B, C, D, z, bias = make_inputs(2, 11, 5, 3)
    u_b, delta_b, A_b, B_b, C_b, D_b, _, bias_b = make_inputs(2, 11, 5, 3, seed=1)
    tensors = [u, delta, A, B, C, D, u_b, delta_b, A_b, B_b, C_b, D_b, z, bias, bias_b]
    assert_parity(
        triton_both,
        exact_both,
        tensors,
        delta_softplus=True,
    )


def test_bidirectional_without_the_optional_tensors() -> None:
    u, delta, A, B, C, *_ = make_inputs(1, 6, 5, 2)
    delta = delta.abs()
    tensors = [u, delta, A, B, C, None, u, delta, 2 * A, C, B, None]
    assert_parity(triton_both, exact_both, tensors)


def test_one_tensor_in_both_directions_gets_both_gradients() -> None:
    u, delta, A, B, C, D, z, bias = make_inputs(1, 5, 4, 2)

    def twice(scan: object, *tensors: Tensor) -> Tensor:
        u, delta, A, B, C, D, z, bias = tensors
        first, second = (u, delta, A, B, C, D), (u, delta, 0.5 * A, B, C, D)
        out: Tensor = scan(*first, *second, z, bias, bias, delta_softplus=True)  # type: ignore[operator]
        return out

    assert_parity(
        lambda *tensors: twice(triton_both, *tensors),
        lambda *tensors: twice(exact_both, *tensors),
        [u, delta, A, B, C, D, z, bias],
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_are_accumulated_in_float32(dtype: torch.dtype) -> None:
    """Only the rounding of the results separates them from float64: half a unit in the last place."""
    u, delta, A, B, C, D, z, bias = make_inputs(2, 9, 4, 3, dtype=dtype)
    u_b, delta_b, A_b, B_b, C_b, D_b, _, bias_b = make_inputs(2, 9, 4, 3, dtype=dtype, seed=1)
    epsilon = torch.finfo(dtype).eps
    assert_parity(
        triton_both,
        exact_both,
        [u, delta, A, B, C, D, u_b, delta_b, A_b, B_b, C_b, D_b, z, bias, bias_b],
        output_error=epsilon / 2,
        gradient_error=epsilon / 2,
        delta_softplus=True,
    )


def test_a_state_of_more_than_128_is_padded() -> None:
    inputs = make_inputs(1, 3, 2, 130)
    assert_parity(triton_one, exact_one, inputs, delta_softplus=True)


@pytest.mark.parametrize("reverse", [False, True])
def test_last_state_is_returned_without_a_gradient(reverse: bool) -> None:
    inputs = [tensor.requires_grad_(tensor.is_leaf) for tensor in make_inputs(2, 5, 3, 4)]
    _, state = triton_one(*inputs, delta_softplus=True, reverse=reverse, return_last_state=True)
    exact = [tensor.detach().double() for tensor in inputs]
    _, expected = exact_one(*exact, delta_softplus=True, reverse=reverse, return_last_state=True)
    assert relative_error(state, expected) < 4e-7
    assert not state.requires_grad


def test_extreme_steps_underflow_to_no_memory() -> None:
    u, delta, A, B, C, *_ = make_inputs(1, 6, 4, 2)
    tensors = [u, torch.full_like(delta, 25.0), torch.full_like(A, -16.0), B, C]
    assert_parity(triton_one, exact_one, tensors)


@pytest.mark.parametrize("offset", [-30.0, -9.0, 30.0])
def test_softplus_keeps_its_digits(offset: float) -> None:
    """Small steps are the usual case at initialisation; 1 + exp(p) would lose them.

    The exponential rounds its argument once, so its relative error grows as |p| 2^-24: 2e-6 at -30.
    """
    u, delta, A, B, C, *_, bias = make_inputs(1, 4, 5, 2)
    tensors = [u, delta + offset, A, B, C, None, None, bias]
    assert_parity(triton_one, exact_one, tensors, output_error=2e-6, delta_softplus=True)


def test_halves_of_a_projection_are_not_copied() -> None:
    u, _, _, B, _, _, z, _ = make_inputs(2, 5, 6, 3)
    assert [t.is_contiguous() for t in (u, z, B)] == [False, False, False]
    assert [triton_host.dense_rows(t).data_ptr() for t in (u, z, B)] == [t.data_ptr() for t in (u, z, B)]


def test_layouts_without_a_dense_last_axis_give_the_same() -> None:
    inputs = make_inputs(2, 5, 6, 3)
    turned = [t.transpose(-1, -2).contiguous().transpose(-1, -2) if t.ndim > 1 else t for t in inputs]
    expected = triton_one(*inputs, delta_softplus=True)
    torch.testing.assert_close(triton_one(*turned, delta_softplus=True), expected, rtol=0, atol=0)


def test_an_expanded_gradient_is_accepted() -> None:
    inputs = [t.detach().requires_grad_() for t in make_inputs(1, 3, 4, 2)]
    gradients = torch.autograd.grad(triton_one(*inputs, delta_softplus=True).sum(), inputs)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    wanted = torch.autograd.grad(exact_one(*exact, delta_softplus=True).sum(), exact)
    assert max(relative_error(g, w) for g, w in zip(gradients, wanted, strict=True)) < 2e-6


@pytest.mark.parametrize("number", range(4))
def test_every_candidate_computes_the_same(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def pick(key: tuple[object, ...], candidates: list[Tiles], launch: object) -> Tiles:
        return candidates[min(number, len(candidates) - 1)]

    monkeypatch.setattr(triton_op, "pick_tiles", pick)
    inputs = make_inputs(1, 5, 3, 4)
    assert_parity(triton_one, exact_one, inputs, delta_softplus=True)


SPLITS = {"chunks": Split(steps=8, apart=True), "apart": Split(apart=True)}


def force_split(monkeypatch: pytest.MonkeyPatch, split: Split) -> list[str]:
    """Cut every scan so; returns the names of the kernels launched from now on."""
    launched: list[str] = []
    kernel = triton_host.kernel

    def note(module: str, name: str) -> object:
        launched.append(name)
        return kernel(module, name)

    monkeypatch.setattr(triton_configs, "SEGMENT", 8)
    monkeypatch.setattr(triton_op, "pick_split", lambda *where: split)
    monkeypatch.setattr(triton_host, "kernel", note)
    return launched


@pytest.mark.parametrize("name", SPLITS)
def test_split_in_both_directions_agrees_with_the_reference(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    launched = force_split(monkeypatch, SPLITS[name])
    u, delta, A, B, C, D, z, bias = make_inputs(2, 21, 3, 3)
    u_b, delta_b, A_b, B_b, C_b, D_b, _, bias_b = make_inputs(2, 21, 3, 3, seed=1)
    tensors = [u, delta, A, B, C, D, u_b, delta_b, A_b, B_b, C_b, D_b, z, bias, bias_b]
    assert_parity(triton_both, exact_both, tensors, delta_softplus=True)
    chunked = ["chunk_states_kernel", "forward_chunks_kernel", "join_kernel", "chunk_adjoints_kernel"]
    apart = ["forward_chunks_kernel", "join_kernel"]
    assert launched == [*(chunked if name == "chunks" else apart), "backward_kernel", "sum_slots_kernel"]


@pytest.mark.parametrize("reverse", [False, True])
def test_split_of_one_direction_agrees_with_the_reference(
    monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    force_split(monkeypatch, SPLITS["chunks"])
    inputs = make_inputs(1, 24, 3, 4)
    assert_parity(triton_one, exact_one, inputs, delta_softplus=True, reverse=reverse)
    _, state = triton_one(*inputs, delta_softplus=True, reverse=reverse, return_last_state=True)
    exact = [t.double() for t in inputs]
    _, expected = exact_one(*exact, delta_softplus=True, reverse=reverse, return_last_state=True)
    assert relative_error(state, expected) < 4e-7


def test_split_without_the_optional_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    force_split(monkeypatch, SPLITS["chunks"])
    u, delta, A, B, C, *_ = make_inputs(1, 10, 3, 2)
    delta = delta.abs()
    assert_parity(triton_both, exact_both, [u, delta, A, B, C, None, u, delta, 2 * A, C, B, None])


@pytest.mark.parametrize("case", golden_cases("speed", "split"), ids=lambda case: case["name"])
def test_split_equals_golden(monkeypatch: pytest.MonkeyPatch, case: dict[str, Any]) -> None:
    """dt comes ready made: no bias and no softplus. Chunks are the recorded ones, in whole tiles."""
    tensors, options = golden_tensors("speed", "split", case["name"]), case["options"]
    steps = -(-options["chunk"] // 4) * 4
    force_split(monkeypatch, Split(steps=steps, apart=True))
    monkeypatch.setattr(triton_configs, "SEGMENT", steps)
    inputs = {name: tensors[name].float().requires_grad_() for name in ("u", "dt", "A", "B", "C")}
    y, state = triton_one(*inputs.values(), reverse=options["reverse"], return_last_state=True)
    grads = torch.autograd.grad(y, list(inputs.values()), tensors["grad_y"].float())
    found = {"y": y, "last_state": state}
    found |= {f"grad_{name}": grad for name, grad in zip(inputs, grads, strict=True)}
    for name, value in found.items():
        gap = (value.detach().double() - tensors[name]).abs().max() / tensors[name].abs().max()
        assert gap < 2e-6, name


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 256, 768), (4, True)),
        ((1, 4096, 768), (16, True)),
        ((2, 1024, 768), (8, True)),
        ((1, 1024, 2304), (4, True)),
        ((2, 1024, 2304), (1, True)),
        ((4, 4096, 768), (4, True)),
        ((8, 1024, 768), (1, True)),
        ((8, 256, 2304), (1, False)),
        ((1, 100, 768), (1, True)),
    ],
)
def test_the_split_follows_the_shape(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], expected: tuple[int, bool]
) -> None:
    monkeypatch.setattr(triton_configs, "_multiprocessors", lambda device: 132)
    split = triton_configs.pick_split(*shape, torch.device("cuda"))
    assert (split.num_chunks(shape[1]), split.apart) == expected
    assert split.steps % triton_configs.SEGMENT == 0


@pytest.mark.parametrize("both", [False, True])
def test_nothing_is_launched_for_an_empty_batch(monkeypatch: pytest.MonkeyPatch, both: bool) -> None:
    def refuse(module: str, name: str) -> None:
        raise AssertionError("launched")

    monkeypatch.setattr(triton_host, "kernel", refuse)
    inputs = [t[:0] if t.ndim == 3 else t for t in make_inputs(2, 5, 4, 3)]
    leaves = [t.detach().requires_grad_() for t in inputs]
    u, delta, A, B, C, D, z, bias = leaves
    branch = (u, delta, A, B, C, D)
    out = triton_both(*branch, *branch, z, bias, bias) if both else triton_one(*leaves)
    assert out.shape == (0, 5, 4)
    gradients = torch.autograd.grad(out.sum(), leaves)
    assert [g.shape for g in gradients] == [t.shape for t in inputs]
    assert not any(g.any() for g in gradients)


@triton.jit
def store_offsets(out, batch, step, length, width, REVERSE: tl.constexpr):
    rows, channels = tl.arange(0, 2), tl.arange(0, 2)[None, :]
    strides = triton_tiles.dense_strides(length, width)
    offsets = triton_tiles.channel_offsets(
        tl.cast(batch, tl.int64), step, length, rows, channels, strides, REVERSE
    )
    tl.store(out + rows[:, None, None] * 2 + channels[None, :, :], offsets)


@pytest.mark.parametrize("reverse", [False, True])
def test_offsets_pass_two_to_the_31(reverse: bool) -> None:
    """One sample of 932,068 rows of 2,304 channels, and the third of such samples; no memory is needed."""
    out, length, width, step = torch.zeros(2, 2, dtype=torch.int64), 932_068, 2304, 932_000
    store_offsets[(1,)](out, 2, step, length, width, REVERSE=reverse)
    rows = [2 * length + (length - 1 - step - i if reverse else step + i) for i in range(2)]
    assert out.tolist() == [[row * width, row * width + 1] for row in rows]


def test_the_dispatcher_runs_it_by_name() -> None:
    inputs = make_inputs(1, 3, 4, 2)
    out = selective_scan(*inputs, delta_softplus=True, backend="triton")
    exact = [t.double() for t in inputs]
    assert relative_error(out, exact_one(*exact, delta_softplus=True)) < 4e-7
    u, delta, A, B, C, D, z, bias = inputs
    both = (u, delta, A, B, C, D, u, delta, A, B, C, D, z, bias, bias)
    out = bidirectional_selective_scan(*both, delta_softplus=True, backend="triton")
    torch.testing.assert_close(out, exact_both(*both, delta_softplus=True))


def test_the_custom_op_has_a_correct_fake_kernel_and_autograd() -> None:
    inputs = [t.detach().requires_grad_() for t in make_inputs(1, 3, 2, 2)]
    u, delta, A, B, C, D, z, bias = inputs
    for scans in ([Scan(u, delta, A, B, C, D, bias)], [Scan(u, delta, A, B, C), Scan(u, delta, A, C, B, D)]):
        arguments = (*pack(scans, z), True, False, True, False)
        torch.library.opcheck(triton_op.scan_op, arguments, atol=1e-6, rtol=1e-5)


def test_compiled_and_autocast_calls_give_the_same() -> None:
    inputs = make_inputs(1, 3, 4, 2)

    def scan(*tensors: Tensor) -> Tensor:
        out = triton_one(*tensors, delta_softplus=True)
        assert isinstance(out, Tensor)
        return out

    expected, wanted = gradients_of(scan, inputs)
    compiled = torch.compile(scan, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, gradients = gradients_of(compiled, inputs)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    torch.testing.assert_close(gradients, wanted, rtol=0, atol=0)


def test_unsupported_calls_are_named() -> None:
    u, delta, A, B, C, D, z, bias = make_inputs(1, 3, 4, 2)
    scan = Scan(u, delta, A, B, C, D, bias)
    reason = triton_scan.unsupported_reason
    assert reason(scan, z) is None
    assert "float64" in (reason(scan._replace(u=u.double()), z) or "")
    assert "float64" in (reason(scan, z.double()) or "")
    assert "constant" in (reason(scan._replace(B=B[0, 0].expand(4, 2)), z) or "")
    assert "grouped" in (reason(scan._replace(C=C[:, :, None]), z) or "")
    assert "300" in (reason(scan._replace(A=torch.ones(4, 300)), z) or "")


def test_the_interpreter_never_measures() -> None:
    def launch(tiles: Tiles) -> None:
        raise AssertionError("a candidate was timed")

    candidates = triton_configs.forward_tiles(16)
    assert triton_configs.pick_tiles(("key",), candidates, launch) == candidates[0]


def test_a_captured_graph_keeps_what_its_warm_up_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = triton_configs.forward_tiles(16)
    monkeypatch.setattr(triton_configs, "_may_differ", lambda: True)
    monkeypatch.setattr(triton_configs, "_capturing", lambda: True)
    monkeypatch.setattr(triton_configs, "_measured", {("known",): candidates[1]})
    picked = [triton_configs.pick_tiles(key, candidates, print) for key in (("known",), ("unknown",))]
    assert picked == [candidates[1], candidates[0]]
    monkeypatch.setattr(triton_configs, "_may_differ", lambda: False)
    assert triton_configs.pick_tiles(("known",), candidates, print) == candidates[0]

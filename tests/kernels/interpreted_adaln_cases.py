"""The fused residual and norm on the CPU, under Triton's interpreter, against plain torch in float64.

Not collected by itself: `test_triton_interpreter.py` runs it in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from golden.manifest import golden_cases
from golden.speed_cases import SET, check_adaln
from torch import Tensor
from torch.nn.functional import layer_norm

from genzoo.families.car.var import blocks as var_blocks
from genzoo.families.car.var.blocks import Block
from genzoo.families.matten.blocks import AdaptiveMambaBlock
from genzoo.kernels import triton_host
from genzoo.kernels.adaln import triton_adaln
from genzoo.nn import modulation
from genzoo.nn.blocks import AttentionBlock, MambaBlock
from genzoo.nn.modulation import FinalLayer

EPS = 1e-6


def count_launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels launched from now on."""
    launched: list[str] = []

    kernel = triton_host.kernel

    def note(module: str, name: str) -> Any:
        launched.append(name)
        return kernel(module, name)

    monkeypatch.setattr(triton_host, "kernel", note)
    return launched


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several programs for each condition at sizes that the interpreter can afford."""
    monkeypatch.setattr(triton_adaln, "ROWS", 3)


def exact_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    each = len(x) // len(shift)
    shift, scale = (t.repeat_interleave(each, 0)[:, None] for t in (shift, scale))
    return layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


def exact_residual(x: Tensor, gate: Tensor, branch: Tensor) -> Tensor:
    return x + gate.repeat_interleave(len(x) // len(gate), 0)[:, None] * branch


def exact_both(
    x: Tensor, gate: Tensor, branch: Tensor, shift: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    x1 = exact_residual(x, gate, branch)
    return x1, exact_norm(x1, shift, scale)


def fused_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return triton_adaln.modulated_norm(x, shift, scale, eps=EPS, out_dtype=shift.dtype)


def fused_both(
    x: Tensor, gate: Tensor, branch: Tensor, shift: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    return triton_adaln.gated_residual_norm(x, gate, branch, shift, scale, eps=EPS, out_dtype=shift.dtype)


FORMS: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[str, ...]]] = {
    "norm": (fused_norm, exact_norm, ("x", "shift", "scale")),
    "residual": (triton_adaln.gated_residual, exact_residual, ("x", "gate", "branch")),
    "both": (fused_both, exact_both, ("x", "gate", "branch", "shift", "scale")),
}


def make_inputs(b: int, c: int, l: int, d: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """x in float32, the others in `dtype`; x and branch halves, the modulation chunks of one tensor."""
    g = torch.Generator().manual_seed(0)
    stream = torch.randn(b, l, 2 * d, generator=g).chunk(2, dim=2)
    chunks = torch.randn(c, 3 * d, generator=g).to(dtype).chunk(3, dim=1)
    named = dict(zip(("gate", "shift", "scale"), chunks, strict=True))
    return {"x": stream[0], "branch": stream[1].to(dtype), **named}


def run(function: Callable[..., Any], tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    leaves = [t.detach().requires_grad_() for t in tensors]
    found = function(*leaves)
    outs = list(found) if isinstance(found, tuple) else [found]
    # strided rows, and another cotangent for each output
    grads = [torch.sin(torch.arange(2 * o.numel(), dtype=torch.float64) + i) for i, o in enumerate(outs)]
    grads = [
        g.view(*o.shape[:2], 2 * o.shape[2])[..., : o.shape[2]].to(o.dtype)
        for g, o in zip(grads, outs, strict=True)
    ]
    return outs, list(torch.autograd.grad(outs, leaves, grads))


def relative_error(value: Tensor, expected: Tensor) -> float:
    return float((value.detach().double() - expected.detach()).norm() / expected.detach().norm())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("b", "c", "l", "d"), [(2, 2, 5, 12), (6, 2, 4, 7), (1, 1, 1, 9), (3, 1, 2, 16)])
def test_outputs_and_gradients_agree_with_torch(form: str, b: int, c: int, l: int, d: int) -> None:
    fused, exact, names = FORMS[form]
    tensors = [make_inputs(b, c, l, d)[name] for name in names]
    outs, grads = run(fused, tensors)
    expected, wanted = run(exact, [t.double() for t in tensors])
    errors = [relative_error(a, e) for a, e in zip(outs + grads, expected + wanted, strict=True)]
    assert max(errors) < 1e-6, errors


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_branches_keep_a_float32_stream(form: str, dtype: torch.dtype) -> None:
    fused, exact, names = FORMS[form]
    tensors = [make_inputs(2, 1, 3, 12, dtype)[name] for name in names]
    outs, grads = run(fused, tensors)
    expected, wanted = run(exact, [t.double() for t in tensors])
    assert [out.dtype for out in outs] == {"norm": [dtype], "residual": [torch.float32]}.get(
        form, [torch.float32, dtype]
    )
    assert [grad.dtype for grad in grads] == [t.dtype for t in tensors]
    errors = [relative_error(a, e) for a, e in zip(outs + grads, expected + wanted, strict=True)]
    # a unit in the last place, not half: where a GPU rounds to bfloat16, the interpreter cuts off
    assert max(errors) < torch.finfo(dtype).eps, errors


def test_an_unused_output_has_no_share_in_the_gradients() -> None:
    tensors = [make_inputs(2, 2, 3, 8)[name] for name in FORMS["both"][2]]
    for used in (0, 1):
        _, grads = run(lambda *t, used=used: fused_both(*t)[used], tensors)
        leaves = [t.double().requires_grad_() for t in tensors]
        out = exact_both(*leaves)[used]
        cotangent = torch.sin(torch.arange(2 * out.numel(), dtype=torch.float64)).view(2, 3, -1)[..., :8]
        wanted = torch.autograd.grad(out, leaves, cotangent, materialize_grads=True)
        for grad, expected in zip(grads, wanted, strict=True):
            assert (grad - expected).norm() < 1e-5


def test_two_runs_give_the_same_bits() -> None:
    tensors = [make_inputs(2, 1, 4, 9)[name] for name in FORMS["both"][2]]
    first, second = run(fused_both, tensors), run(fused_both, tensors)
    assert all(torch.equal(a, b) for a, b in zip(first[0] + first[1], second[0] + second[1], strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_launched_for_an_empty_batch(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    def refuse(module: str, name: str) -> None:
        raise AssertionError("launched")

    monkeypatch.setattr(triton_host, "kernel", refuse)
    inputs = make_inputs(2, 2, 3, 8)
    inputs |= {"x": inputs["x"][:0], "branch": inputs["branch"][:0]}
    outs, grads = run(FORMS[form][0], [inputs[name] for name in FORMS[form][2]])
    assert all(out.shape == (0, 3, 8) for out in outs)
    assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize("form", FORMS)
def test_the_custom_op_has_a_correct_fake_kernel_and_autograd(form: str) -> None:
    inputs, names = make_inputs(2, 1, 2, 4), FORMS[form][2]
    places = ("gate", "branch", "shift", "scale")
    tensors = [inputs[name].detach().requires_grad_() for name in places if name in names]
    x = inputs["x"].detach().requires_grad_()
    arguments = (x, tensors, [name in names for name in places], EPS, torch.float32)
    torch.library.opcheck(triton_adaln.adaln_op, arguments, atol=1e-5, rtol=1e-4)


def test_wide_rows_are_left_to_torch_with_the_reason() -> None:
    assert triton_adaln.unsupported_reason(torch.zeros(1, 2, 4096)) is None
    assert "rows of 4097 values" in (triton_adaln.unsupported_reason(torch.zeros(1, 2, 4097)) or "")
    assert "float64" in (triton_adaln.unsupported_reason(torch.zeros(1, 2, 8, dtype=torch.float64)) or "")


def dit_like(block: torch.nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    torch.nn.init.normal_(block.adaLN_modulation[1].weight)  # type: ignore[index]
    return lambda x, c: block(x, c)


def var_like(block: Block) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, c: block(x, block.modulation(c.repeat_interleave(2, 0)))


torch.manual_seed(0)  # the same weights in every run: bf16 in the interpreter is near the tolerance
BLOCKS: dict[str, tuple[torch.nn.Module, Callable[..., Any]]] = {
    "dim": (MambaBlock(12, d_state=2), dit_like),
    "dit": (AttentionBlock(12, 3), dit_like),
    "matten": (AdaptiveMambaBlock(12, d_state=2), dit_like),
    "final": (FinalLayer(12, 5), dit_like),
    "var": (
        Block(12, 3, mlp_ratio=2.0, drop_path=0.0, l2_norm=True, shared_adaln=False),
        var_like,
    ),
}


@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_computes_the_same_fused(
    monkeypatch: pytest.MonkeyPatch, name: str, precision: torch.dtype | None
) -> None:
    """Frames share their condition; under autocast the norm hands on what Linear would make of it."""
    torch.manual_seed(0)
    block, build = BLOCKS[name]
    call, x, c = build(block), torch.randn(4, 3, 12), torch.randn(2, 12)
    results = []
    launched = count_launches(monkeypatch)
    for fused in (False, True):
        for module in (modulation, var_blocks):
            monkeypatch.setattr(module, "is_fused", lambda x, fused=fused: fused)
        leaves = [x.clone().requires_grad_(), c.clone().requires_grad_(), *block.parameters()]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is not None):
            out = call(*leaves[:2])
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    # a norm alone, a norm after a gate, a gate alone; as many for the gradients, and as many for their sums
    assert sum(name != "forward_kernel" for name in launched) == 2 * launched.count("forward_kernel")
    assert launched.count("forward_kernel") == {"matten": 2, "final": 1}.get(name, 3)
    # where torch rounds to bfloat16 the interpreter cuts off, in each of the fused places
    tolerance = 1e-5 if precision is None else 6e-2
    for plain, found in zip(*results, strict=True):
        assert found.dtype == plain.dtype
        assert (found.double() - plain.double()).norm() <= tolerance * plain.double().norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", golden_cases(SET, "adaln"), ids=lambda case: case["name"])
def test_kernels_equal_golden(case: dict[str, Any], dtype: torch.dtype) -> None:
    def fused(
        x: Tensor, gate: Tensor, branch: Tensor, shift: Tensor, scale: Tensor, *, eps: float
    ) -> tuple[Tensor, Tensor]:
        return triton_adaln.gated_residual_norm(x, gate, branch, shift, scale, eps=eps, out_dtype=dtype)

    check_adaln(case, fused, dtype)

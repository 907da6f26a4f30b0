"""The fused residual and norm on the CPU, under Triton's interpreter, against plain torch in float64.

Not collected by itself: `test_triton_interpreter.py` runs it in a process of its own.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden.manifest import golden_cases
from golden.speed_cases import SET, check_adaln
from kernels.adaln_forms import BLOCKS, EPS, exact_both, forms_of, make_inputs, relative_error, run
from torch import Tensor

from genzoo.kernels import triton_host
from genzoo.kernels.adaln import triton_adaln
from genzoo.nn import modulation

FORMS = forms_of(triton_adaln)
fused_both = FORMS["both"][0]


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
        monkeypatch.setattr(modulation, "kernels_for", lambda x, fused=fused: triton_adaln if fused else None)
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

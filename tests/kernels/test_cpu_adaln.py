"""The fused residual and norm in C against plain torch in float64: outputs, gradients, and who uses them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden.manifest import golden_cases
from golden.speed_cases import SET, check_adaln
from kernels.adaln_forms import BLOCKS, EPS, exact_both, forms_of, make_inputs, relative_error, run
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from genzoo.kernels.adaln import cpu_adaln
from genzoo.kernels.native import build
from genzoo.nn import modulation

pytestmark = pytest.mark.skipif(
    build.unavailable_reason() is not None, reason="no C compiler on this machine"
)
FORMS = forms_of(cpu_adaln)
fused_both = FORMS["both"][0]
every_form = pytest.mark.parametrize("form", FORMS)
# widths around the vectors of every machine (4, 8, 16), conditions of more rows than a piece (32)
SHAPES = [(2, 2, 5, 12), (6, 2, 4, 7), (1, 1, 1, 9), (3, 1, 2, 16), (2, 1, 37, 65), (1, 1, 70, 130)]


def errors(found: tuple[list[Tensor], list[Tensor]], exact: tuple[list[Tensor], list[Tensor]]) -> list[float]:
    pairs = zip(found[0] + found[1], exact[0] + exact[1], strict=True)
    return [relative_error(value, expected) for value, expected in pairs]


@every_form
@pytest.mark.parametrize(("b", "c", "l", "d"), SHAPES)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-6), (torch.float64, 1e-14)], ids=str)
def test_outputs_and_gradients_agree_with_torch(
    form: str, b: int, c: int, l: int, d: int, dtype: torch.dtype, limit: float
) -> None:
    fused, exact, names = FORMS[form]
    tensors = [make_inputs(b, c, l, d)[name].to(dtype) for name in names]
    found, expected = run(fused, tensors), run(exact, [t.double() for t in tensors])
    assert max(errors(found, expected)) < limit
    assert {t.dtype for t in found[0] + found[1]} == {dtype}


@every_form
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bit_branches_keep_a_float32_stream(form: str, dtype: torch.dtype) -> None:
    fused, exact, names = FORMS[form]
    tensors = [make_inputs(2, 1, 35, 24, dtype)[name] for name in names]
    found, expected = run(fused, tensors, dtype), run(exact, [t.double() for t in tensors], dtype)
    kinds = {"norm": [dtype], "residual": [torch.float32]}.get(form, [torch.float32, dtype])
    assert [out.dtype for out in found[0]] == kinds
    assert [grad.dtype for grad in found[1]] == [t.dtype for t in tensors]
    # results are rounded once, to nearest: half a unit in the last place
    assert max(errors(found, expected)) < torch.finfo(dtype).eps / 2


def test_a_stream_of_sixteen_bits_stays_one() -> None:
    tensors = [make_inputs(2, 2, 3, 20)[name].bfloat16() for name in FORMS["both"][2]]
    found, expected = run(fused_both, tensors), run(exact_both, [t.double() for t in tensors])
    assert {t.dtype for t in found[0] + found[1]} == {torch.bfloat16}
    assert max(errors(found, expected)) < 1e-2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", golden_cases(SET, "adaln"), ids=lambda case: case["name"])
def test_kernels_equal_golden(case: dict[str, Any], dtype: torch.dtype) -> None:
    def fused(
        x: Tensor, gate: Tensor, branch: Tensor, shift: Tensor, scale: Tensor, *, eps: float
    ) -> tuple[Tensor, Tensor]:
        return cpu_adaln.gated_residual_norm(x, gate, branch, shift, scale, eps=eps, out_dtype=dtype)

    check_adaln(case, fused, dtype)


@pytest.mark.parametrize("used", [0, 1])
def test_an_unused_output_has_no_share_in_the_gradients(used: int) -> None:
    tensors = [make_inputs(2, 2, 3, 8)[name] for name in FORMS["both"][2]]
    _, grads = run(lambda *t: fused_both(*t)[used], tensors)
    leaves = [t.double().requires_grad_() for t in tensors]
    out = exact_both(*leaves)[used]
    cotangent = torch.sin(torch.arange(2 * out.numel(), dtype=torch.float64)).view(2, 3, -1)[..., :8]
    wanted = torch.autograd.grad(out, leaves, cotangent, materialize_grads=True)
    for grad, expected in zip(grads, wanted, strict=True):
        assert (grad - expected).norm() < 1e-5


def test_threads_change_no_bit() -> None:
    tensors = [make_inputs(3, 1, 200, 48)[name] for name in FORMS["both"][2]]
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            results.append(run(fused_both, tensors))
    finally:
        torch.set_num_threads(threads)
    first, second = results
    assert all(torch.equal(a, b) for a, b in zip(first[0] + first[1], second[0] + second[1], strict=True))


@every_form
def test_an_empty_batch_has_empty_results(form: str) -> None:
    inputs = make_inputs(2, 2, 3, 8)
    inputs |= {"x": inputs["x"][:0], "branch": inputs["branch"][:0]}
    outs, grads = run(FORMS[form][0], [inputs[name] for name in FORMS[form][2]])
    assert all(out.shape == (0, 3, 8) for out in outs)
    assert not any(grad.any() for grad in grads)


@every_form
def test_the_custom_op_has_a_correct_fake_kernel_and_autograd(form: str) -> None:
    inputs, names = make_inputs(2, 1, 2, 4), FORMS[form][2]
    places = ("gate", "branch", "shift", "scale")
    tensors = [inputs[name].detach().requires_grad_() for name in places if name in names]
    x = inputs["x"].detach().requires_grad_()
    arguments = (x, tensors, [name in names for name in places], EPS, torch.float32)
    torch.library.opcheck(cpu_adaln._adaln, arguments, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_a_trace_by_example_computes_with_what_it_is_given() -> None:
    inputs = make_inputs(2, 2, 3, 8)
    norm, names = modulation.plain_norm(8), ("x", "gate", "branch", "shift", "scale")

    def both(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return modulation.gated_add_then_norm(norm, *tensors)  # type: ignore[arg-type]

    ones = tuple(torch.ones_like(inputs[name]) for name in names)
    traced = torch.jit.trace(both, ones, check_trace=False)
    given = [inputs[name] for name in names]
    for found, expected in zip(traced(*given), both(*given), strict=True):
        torch.testing.assert_close(found, expected)


def test_what_cannot_run_is_left_to_torch_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1, 2, 8)
    assert cpu_adaln.unsupported_reason(x) is None
    assert "float16" in (cpu_adaln.unsupported_reason(x.half()) or "")
    assert "meta" in (cpu_adaln.unsupported_reason(x.to("meta")) or "")
    told = torch.func.vmap(lambda one: torch.tensor(cpu_adaln.unsupported_reason(one) == "x is traced"))
    assert told(x[None]).all()
    with FakeTensorMode():  # counted as it will run
        assert cpu_adaln.unsupported_reason(torch.zeros(1, 2, 8)) is None
    monkeypatch.setattr(cpu_adaln.call, "unavailable_reason", lambda: "no compiler")
    assert cpu_adaln.unsupported_reason(x) == "no compiler"
    assert modulation.kernels_for(x) is None


@pytest.mark.parametrize(("precision", "limit"), [(None, 1e-5), (torch.bfloat16, 6e-2)], ids=str)
@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_uses_the_kernels_and_computes_the_same(
    monkeypatch: pytest.MonkeyPatch, name: str, precision: torch.dtype | None, limit: float
) -> None:
    """Frames share their condition; under autocast the norm hands on what Linear would make of it."""
    torch.manual_seed(0)
    block, build_call = BLOCKS[name]
    forward, x, c = build_call(block), torch.randn(4, 3, 12), torch.randn(2, 12)
    invoked: list[str] = []
    invoke = cpu_adaln.invoke
    monkeypatch.setattr(cpu_adaln, "invoke", lambda name, *rest: (invoked.append(name), invoke(name, *rest)))
    results = []
    for kernels in (None, cpu_adaln):
        monkeypatch.setattr(modulation, "kernels_for", lambda x, kernels=kernels: kernels)
        leaves = [x.clone().requires_grad_(), c.clone().requires_grad_(), *block.parameters()]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is not None):
            out = forward(*leaves[:2])
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    # a norm alone, a norm after a gate, a gate alone; as many for the gradients
    assert invoked.count("genzoo_adaln_forward") == {"matten": 2, "final": 1}.get(name, 3)
    assert invoked.count("genzoo_adaln_backward") == invoked.count("genzoo_adaln_forward")
    # in bfloat16 both round, and to different sides
    for plain, found in zip(*results, strict=True):
        assert found.dtype == plain.dtype
        assert (found.double() - plain.double()).norm() <= limit * plain.double().norm()

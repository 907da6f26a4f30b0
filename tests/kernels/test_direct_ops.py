"""A custom op called without the registry: same values, same gradients; the op where something watches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from genzoo.kernels.direct import Direct

CALLS: list[str] = []


def weighted(x: Tensor, others: Sequence[Tensor], factor: float) -> tuple[Tensor, Tensor]:
    """factor x + others[0] others[1], and a statistic without a gradient."""
    CALLS.append("run")
    return factor * x + others[0] * others[1], x.detach().square().mean(0)


def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, others, ctx.factor = inputs
    ctx.save_for_backward(*others)
    ctx.set_materialize_grads(False)


def differentiate(ctx: Any, grad: Tensor, unused: Tensor | None) -> tuple[Any, ...]:
    CALLS.append("unused" if unused is None else "materialised")
    first, second = ctx.saved_tensors
    return ctx.factor * grad, [second * grad, first * grad], None


OP = torch.library.custom_op("genzoo_tests::weighted", weighted, mutates_args=())
OP.register_fake(lambda x, others, factor: (torch.empty_like(x), x.new_empty(x.shape[1:])))
CALL = Direct(OP, weighted, backward=differentiate, setup_context=keep, differentiable=1)


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    CALLS.clear()


def make(requires_grad: bool = True) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(3, 5, generator=g).requires_grad_(requires_grad) for _ in range(3)]


def test_values_and_gradients_are_those_of_the_op_bit_for_bit() -> None:
    found = []
    for call in (CALL, OP):
        x, a, b = make()
        out, statistic = call(x, [a, b], 1.7)
        found.append([out, statistic, *torch.autograd.grad(out, (x, a, b), torch.cos(out.detach()))])
    assert all(torch.equal(direct, registered) for direct, registered in zip(*found, strict=True))
    assert CALLS == ["run", "unused"] * 2


def test_only_the_first_outputs_have_gradients_and_inputs_without_one_get_none() -> None:
    x, a, b = make()
    a.requires_grad_(False)
    out, statistic = CALL(x, [a, b], 1.7)
    assert (out.requires_grad, statistic.requires_grad) == (True, False)
    out.sum().backward()
    assert a.grad is None
    assert torch.equal(x.grad, torch.full_like(x, 1.7))


def test_nothing_is_recorded_without_gradients() -> None:
    assert CALL(*_packed(make(requires_grad=False)))[0].grad_fn is None
    with torch.no_grad():
        assert CALL(*_packed(make()))[0].grad_fn is None
    assert CALLS == ["run", "run"]


def _packed(tensors: list[Tensor]) -> tuple[Any, ...]:
    return tensors[0], tensors[1:], 1.7


class Watch(TorchDispatchMode):
    """Names of the ops that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_mode_sees_the_op() -> None:
    arguments = _packed(make())
    with Watch() as watch:
        CALL(*arguments)
    assert watch.names == ["genzoo_tests.weighted.default"]


def test_fake_tensors_reach_the_op_and_run_nothing() -> None:
    with FakeTensorMode():
        out, statistic = CALL(torch.empty(3, 5), [torch.empty(3, 5), torch.empty(3, 5)], 1.7)
    assert (tuple(out.shape), tuple(statistic.shape)) == ((3, 5), (5,))
    assert CALLS == []


def test_a_compiler_finds_the_op_in_one_graph() -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda *t: CALL(*_packed(list(t)))[0] + 1, backend=backend, fullgraph=True)
    out = compiled(*make(requires_grad=False))
    assert "genzoo_tests.weighted" in graphs[0].code
    assert torch.equal(out, CALL(*_packed(make()))[0] + 1)

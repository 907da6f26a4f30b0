"""Weights cast together: the same bits as autocast's own, forward and backward, and nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernels.adaln_forms import BLOCKS
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from genzoo.nn import casting
from genzoo.nn.casting import _cast_places, cast_together
from genzoo.nn.mamba import MambaMixer

CAST = [name for name in BLOCKS if name != "final"]


class Casts(TorchDispatchMode):
    """Counts casts of single tensors, and of lists of them."""

    def __init__(self) -> None:
        super().__init__()
        self.single, self.together = 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.single += func is torch.ops.aten._to_copy.default and isinstance(args[0], nn.Parameter)
        self.together += func is torch.ops.aten._foreach_copy_.default
        return func(*args, **(kwargs or {}))


def results(block: nn.Module, call: Any, x: Tensor, c: Tensor) -> tuple[list[Tensor], Casts]:
    leaves = [x.clone().requires_grad_(), c.clone().requires_grad_(), *block.parameters()]
    with Casts() as casts:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = call(*leaves[:2])
        grads = torch.autograd.grad(out.square().sum(), leaves)
    return [out, *grads], casts


@pytest.mark.parametrize("name", CAST)
def test_outputs_and_gradients_are_autocasts_bit_for_bit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    torch.manual_seed(0)
    block, build = BLOCKS[name]
    call, x, c = build(block), torch.randn(4, 3, 12), torch.randn(2, 12)
    weights = dict(block.named_parameters())
    expected, plain = results(block, call, x, c)
    monkeypatch.setattr(casting, "applies", lambda x: True)
    found, together = results(block, call, x, c)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    assert together.together == 2
    assert together.single < plain.single
    assert all(weights[key] is parameter for key, parameter in block.named_parameters())


def test_steps_of_time_keep_their_exact_bias_and_frozen_weights_are_left() -> None:
    mixer = MambaMixer(12, d_state=2)
    mixer.out_proj.weight.requires_grad_(False)
    names = {id(parameter): name for name, parameter in mixer.named_parameters()}
    cast = [names[id(module._parameters[name])] for module, name in _cast_places(mixer)]
    assert sorted(cast) == [
        "dt_proj.weight",
        "dt_proj_b.weight",
        "in_proj.weight",
        "x_proj.weight",
        "x_proj_b.weight",
    ]


def test_weights_are_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        @cast_together
        def forward(self, x: Tensor) -> Tensor:
            assert self.layer.weight.dtype == torch.bfloat16
            raise ValueError("here")

    monkeypatch.setattr(casting, "applies", lambda x: True)
    block = Failing()
    before = block.layer.weight
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match="here"):
        block(torch.zeros(1, 3))
    assert block.layer.weight is before


def test_only_training_under_autocast_on_a_gpu_casts_together() -> None:
    x = torch.zeros(1, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not casting.applies(x)

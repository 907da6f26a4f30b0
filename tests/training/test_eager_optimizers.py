"""Optimizers without torch's compiler: torch's own, bit for bit, with all of their hooks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from genzoo.training import eager

PAIRS: dict[str, tuple[Callable[..., Optimizer], Callable[..., Optimizer], dict[str, object]]] = {
    "adamw": (eager.AdamW, torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 0.1, "fused": True}),
    "adam": (eager.Adam, torch.optim.Adam, {"lr": 1e-2, "weight_decay": 0.1}),
    "sgd": (eager.SGD, torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9, "nesterov": True}),
    "muon": (eager.Muon, torch.optim.Muon, {"lr": 1e-2, "weight_decay": 0.1}),
}


def steps(
    build: Callable[..., Optimizer], settings: dict[str, object], count: int
) -> tuple[nn.Linear, Optimizer]:
    torch.manual_seed(3)
    layer = nn.Linear(5, 7, bias=False)
    optimizer = build(layer.parameters(), **settings)
    for _ in range(count):
        optimizer.zero_grad()
        (layer(torch.randn(2, 5)) ** 2).sum().backward()
        optimizer.step()
    return layer, optimizer


@pytest.mark.parametrize("name", PAIRS)
def test_steps_and_states_are_torch_s(name: str) -> None:
    ours, theirs, settings = PAIRS[name]
    (layer, optimizer), (other, peer) = steps(ours, settings, 3), steps(theirs, settings, 3)
    assert torch.equal(layer.weight, other.weight)
    assert layer.weight.grad is not None
    kept, expected = optimizer.state_dict(), peer.state_dict()
    assert kept["param_groups"] == expected["param_groups"]
    for slot, value in expected["state"][0].items():
        assert torch.equal(torch.as_tensor(kept["state"][0][slot]), torch.as_tensor(value))


@pytest.mark.parametrize("name", PAIRS)
def test_a_state_put_back_goes_on(name: str) -> None:
    ours, theirs, settings = PAIRS[name]
    (layer, first), (other, peer) = steps(ours, settings, 2), steps(theirs, settings, 2)
    again = ours(layer.parameters(), **settings)
    again.load_state_dict(first.state_dict())
    for weight, optimizer in ((layer.weight, again), (other.weight, peer)):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert torch.equal(layer.weight, other.weight)


def test_hooks_around_a_step_are_called() -> None:
    layer, optimizer = steps(eager.AdamW, {"lr": 1e-2}, 0)
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *given: seen.append("before"))
    optimizer.register_step_post_hook(lambda *given: seen.append("after"))
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()
    assert seen == ["before", "after"]

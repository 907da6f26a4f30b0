"""Optimizer groups, state by name, and the learning rate as a function of the step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.optimization import get_scheduler
from torch import nn

from genzoo.core.errors import CheckpointError, RecipeError
from genzoo.core.model_state import TrainedParameters
from genzoo.training.optim import (
    build_optimizer,
    decay_groups,
    learning_rate,
    load_optimizer_tensors,
    optimizer_tensors,
    set_step,
)


def parameters() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator))
        for name, shape in {"a.weight": (4, 3), "b": (5,), "scalar": ()}.items()
    }


def step(optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in named.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


@pytest.mark.parametrize(
    "schedule", ["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
)
@pytest.mark.parametrize("warmup", [0, 7])
def test_rates_are_those_of_the_stepped_diffusers_scheduler(schedule: str, warmup: int) -> None:
    options = {"name": "adamw", "lr": 3e-3, "schedule": schedule, "warmup_steps": warmup}
    rate = learning_rate(build_optimizer(parameters(), options), 20)
    other = torch.optim.SGD([torch.zeros(1)], lr=3e-3)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    stepped = get_scheduler(name, other, num_warmup_steps=warmup, num_training_steps=20)
    expected = []
    for _ in range(20):
        expected.append(stepped.get_last_lr()[0])
        other.step()
        stepped.step()
    assert [rate(s) for s in range(20)] == expected
    # a pure function: asking again, in any order, changes nothing
    assert [rate(s) for s in reversed(range(20))] == expected[::-1]


def test_a_polynomial_below_its_own_end_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"optim\.lr: a polynomial falls to 1e-07"):
        learning_rate(build_optimizer(parameters(), {"schedule": "polynomial", "lr": 1e-8}), 10)


def test_unknown_schedules_and_negative_warm_ups_are_refused() -> None:
    with pytest.raises(RecipeError, match="one of constant"):
        learning_rate(build_optimizer(parameters(), {"schedule": "cosinus"}), 10)
    with pytest.raises(RecipeError, match="-1 is negative"):
        learning_rate(build_optimizer(parameters(), {"warmup_steps": -1}), 10)


BAD_CURVES = [
    ({"schedule": "linear", "hold": 0.1}, "linear has none"),
    ({"schedule": "hold_linear", "hold": 1.0}, "share below 1"),
    ({"schedule": "hold_linear", "final": -0.1}, "share below 1"),
    ({"schedule": "hold_exponential"}, "a share above 0"),
]


@pytest.mark.parametrize(("options", "message"), BAD_CURVES, ids=[message for _, message in BAD_CURVES])
def test_curves_that_cannot_be_followed_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_optimizer(parameters(), options)


def test_weight_decay_stays_without_a_final_one() -> None:
    built = build_optimizer(parameters(), {"name": "sgd", "lr": 0.1, "weight_decay": 0.3})
    set_step(built, 7, 10, 0.05)
    assert [(group["lr"], group["weight_decay"]) for group in built.optimizer.param_groups] == [(0.05, 0.3)]


def test_a_run_shorter_than_its_warm_up_ends_while_the_rate_rises() -> None:
    rate = learning_rate(
        build_optimizer(parameters(), {"warmup_steps": 8, "schedule": "cosine", "lr": 0.8}), 3
    )
    assert [rate(step) for step in range(3)] == pytest.approx([0.0, 0.1, 0.2])


def test_unknown_options_are_refused() -> None:
    with pytest.raises(RecipeError, match="learning_rate"):
        build_optimizer(parameters(), {"name": "adamw", "learning_rate": 1.0})


@pytest.mark.parametrize("how", ["named by the module", "marked one by one"])
def test_marked_parameters_do_not_decay(how: str) -> None:
    named = TrainedParameters(parameters(), ["b"] if how == "named by the module" else [])
    if not named.undecayed:
        named["b"]._no_weight_decay = True
    decayed, exempt = decay_groups(named, 0.3)
    assert [p is named["b"] for p in exempt["params"]] == [True]
    assert (len(decayed["params"]), decayed["weight_decay"], exempt["weight_decay"]) == (2, 0.3, 0.0)
    before = named["b"].detach().clone()
    optimizer = build_optimizer(named, {"name": "adamw", "lr": 0.1, "weight_decay": 0.3}).optimizer
    for parameter in named.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert named["b"].equal(before)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_saved_state_continues_exactly_whatever_the_order_of_parameters(name: str) -> None:
    options: dict[str, Any] = {"name": name, "lr": 0.01, "weight_decay": 0.1}
    ours = parameters()
    optimizer = build_optimizer(ours, options).optimizer
    step(optimizer, ours, seed=2)
    saved = {key: tensor.clone() for key, tensor in optimizer_tensors(optimizer, ours).items()}
    theirs = {key: nn.Parameter(ours[key].detach().clone()) for key in reversed(list(ours))}
    other = build_optimizer(theirs, options).optimizer
    load_optimizer_tensors(other, theirs, saved, where="here")
    step(optimizer, ours, seed=3)
    step(other, {key: theirs[key] for key in ours}, seed=3)
    assert all(ours[key].equal(theirs[key]) for key in ours)


@pytest.mark.parametrize("damage", ["drop", "add", "shape"])
def test_state_that_does_not_fit_is_refused(damage: str) -> None:
    named = parameters()
    optimizer = build_optimizer(named, {"name": "adamw"}).optimizer
    step(optimizer, named, seed=2)
    saved = optimizer_tensors(optimizer, named)
    if damage == "drop":
        saved.pop("b/exp_avg")
    elif damage == "add":
        saved["c/exp_avg"] = torch.zeros(1)
    else:
        saved["b/exp_avg"] = torch.zeros(6)
    with pytest.raises(CheckpointError, match=r"does not fit the optimizer"):
        load_optimizer_tensors(optimizer, named, saved, where="here")


def test_the_rate_of_a_resumed_run_is_the_recipes() -> None:
    named = parameters()
    optimizer = build_optimizer(named, {"name": "adamw", "lr": 0.5}).optimizer
    step(optimizer, named, seed=2)
    saved = optimizer_tensors(optimizer, named)
    other = build_optimizer(named, {"name": "adamw", "lr": 0.1, "weight_decay": 0.2}).optimizer
    load_optimizer_tensors(other, named, saved, where="here")
    assert [(group["lr"], group["weight_decay"]) for group in other.param_groups] == [(0.1, 0.2)]

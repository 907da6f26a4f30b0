"""The moving average: diffusers' values, exact swapping, exact resume."""

from __future__ import annotations

import contextlib

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from genzoo.core.errors import CheckpointError, RecipeError
from genzoo.training.config import TrainConfig
from genzoo.training.ema import ParameterAverage, decay_of, growth_of

OPTIONS = [
    {"ema_ramp": True},
    {"ema_ramp": True, "ema_decay": 0.5},
    {"ema_ramp": True, "ema_min_decay": 0.4},
    {"ema_ramp": True, "ema_update_after_step": 3},
    {"ema_use_warmup": True, "ema_inv_gamma": 2.0, "ema_power": 0.75},
    {"ema_use_warmup": True, "ema_min_decay": 0.3, "ema_update_after_step": 2},
]


def config(**options: object) -> TrainConfig:
    return TrainConfig(**({"steps": 1, "batch_size": 1, "ema_decay": 0.9} | options))


def move(named: dict[str, nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in named.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def named_parameters() -> dict[str, nn.Parameter]:
    return {"a": nn.Parameter(torch.zeros(3, 2)), "b": nn.Parameter(torch.ones(5))}


@pytest.mark.parametrize("options", OPTIONS)
def test_options_mean_what_they_mean_in_diffusers(options: dict[str, object]) -> None:
    named = named_parameters()
    ours = ParameterAverage(named, config(**options))
    translated = {
        key.removeprefix("ema_").replace("use_warmup", "use_ema_warmup"): v
        for key, v in options.items()
        if key != "ema_ramp"
    }
    theirs = EMAModel(named.values(), foreach=True, **({"decay": 0.9} | translated))
    for seed in range(30):
        move(named, seed)
        ours.update()
        theirs.step(named.values())
        assert all(map(torch.equal, ours.tensors().values(), theirs.shadow_params)), seed
        assert ours.state()["updates"] == theirs.optimization_step


@pytest.mark.parametrize("options", OPTIONS)
def test_the_decay_is_that_of_diffusers_far_into_a_run(options: dict[str, object]) -> None:
    chosen = config(**({"ema_decay": 0.9999} | options))
    theirs = EMAModel(
        [],
        decay=chosen.ema_decay,
        min_decay=chosen.ema_min_decay,
        update_after_step=chosen.ema_update_after_step,
        use_ema_warmup=chosen.ema_use_warmup,
        inv_gamma=chosen.ema_inv_gamma,
        power=chosen.ema_power,
    )
    for update in (*range(1, 50), 999, 89_990, 89_991, 10**6):
        assert decay_of(update, chosen.ema_decay, chosen, growth_of(chosen)) == theirs.get_decay(update)


def test_a_constant_decay_forgets_the_initial_weights_from_the_first_step_on() -> None:
    named = {"a": nn.Parameter(torch.ones(1, dtype=torch.float64))}
    average = ParameterAverage(named, config(ema_decay=0.9))
    with torch.no_grad():
        named["a"].zero_()
    for update in range(1, 40):
        average.update()
        assert average.tensors()["a"].item() == pytest.approx(0.9**update, rel=1e-12)


def test_a_constant_average_may_begin_late_as_a_copy() -> None:
    named = {"a": nn.Parameter(torch.zeros(1))}
    average = ParameterAverage(named, config(ema_decay=0.5, ema_update_after_step=2))
    seen = []
    for value in (1.0, 2.0, 4.0, 8.0):
        with torch.no_grad():
            named["a"].fill_(value)
        average.update()
        seen.append(average.tensors()["a"].item())
    assert seen == [1.0, 2.0, 3.0, 5.5]


def test_an_average_of_an_earlier_version_goes_on_growing(caplog: pytest.LogCaptureFixture) -> None:
    named = {"a": nn.Parameter(torch.zeros(1))}
    old = ParameterAverage(named, config(ema_ramp=True))
    old.update()
    average = ParameterAverage(named, config())
    average.restore(old.tensors(), {"updates": 1}, where="here")
    assert "goes on so" in caplog.text
    with torch.no_grad():
        named["a"].fill_(1.0)
    for each in (old, average):
        each.update()
    assert average.tensors()["a"].equal(old.tensors()["a"])
    assert average.state() == old.state()
    fresh = ParameterAverage(named, config())
    fresh.restore(old.tensors(), {"updates": 2, "growth": "constant"}, where="here")
    assert fresh.growth == "constant"


def test_two_ways_of_growing_are_refused() -> None:
    with pytest.raises(RecipeError, match="choose one of them"):
        config(ema_ramp=True, ema_use_warmup=True)


def test_the_decay_follows_its_schedule() -> None:
    named = {"a": nn.Parameter(torch.zeros(1))}
    average = ParameterAverage(named, config(ema_ramp=True, ema_decay=0.15, ema_schedule=[[2, 0.05], [3, 0]]))
    seen, expected, shadow = [], [], 0.0
    # diffusers' first step copies, and its second would decay by 2/11 if that were not above 0.15
    for value, decay in zip((1.0, 2.0, 3.0, 4.0), (0.0, 0.15, 0.05, 0.0), strict=True):
        with torch.no_grad():
            named["a"].fill_(value)
        average.update()
        seen.append(average.tensors()["a"].item())
        shadow = decay * shadow + (1 - decay) * value
        expected.append(shadow)
    assert seen == pytest.approx(expected)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([[5, 1.0]], r"\[5, 1.0\] is no pair"),
        ([[5]], r"\[5\] is no pair"),
        ([[0, 0.5]], r"\[0, 0.5\] is no pair"),
        ([[9, 0.5], [9, 0.6]], r"steps must grow, these are \[9, 9\]"),
    ],
)
def test_wrong_schedules_are_named(schedule: list[list[float]], message: str) -> None:
    with pytest.raises(RecipeError, match=f"train.ema_schedule: {message}"):
        config(ema_schedule=schedule)
    with pytest.raises(RecipeError, match="no average to schedule"):
        config(ema_decay=None, ema_schedule=[[5, 0.5]])


def test_swapping_in_and_out_is_exact_even_after_an_error() -> None:
    named = named_parameters()
    average = ParameterAverage(named, config())
    move(named, 1)
    average.update()
    move(named, 2)
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    with contextlib.suppress(ZeroDivisionError), average.swapped_in():
        assert all(named[name].equal(value) for name, value in average.tensors().items())
        assert not named["a"].equal(before["a"])
        raise ZeroDivisionError
    assert all(named[name].equal(before[name]) for name in named)


def test_swapping_is_a_write_that_copies_of_the_weights_can_see() -> None:
    named = named_parameters()
    average = ParameterAverage(named, config())
    versions = [named["a"]._version]
    with average.swapped_in():
        versions.append(named["a"]._version)
    versions.append(named["a"]._version)
    assert versions == sorted(set(versions))


def test_a_restored_average_continues_exactly() -> None:
    named = named_parameters()
    average = ParameterAverage(named, config(ema_use_warmup=True))
    for seed in range(3):
        move(named, seed)
        average.update()
    tensors, state = {k: v.clone() for k, v in average.tensors().items()}, average.state()
    other = ParameterAverage(
        {name: nn.Parameter(p.detach().clone()) for name, p in named.items()}, average_config()
    )
    other.restore(tensors, state, where="here")
    other.parameters = named
    move(named, 9)
    average.update()
    other.update()
    assert all(other.tensors()[name].equal(value) for name, value in average.tensors().items())


def average_config() -> TrainConfig:
    return config(ema_use_warmup=True)


def test_an_average_of_other_parameters_is_refused() -> None:
    average = ParameterAverage(named_parameters(), config())
    with pytest.raises(CheckpointError, match="missing b"):
        average.restore({"a": torch.zeros(3, 2)}, {"updates": 1}, where="here")
    with pytest.raises(CheckpointError, match="number of EMA updates"):
        average.restore(average.tensors(), {"updates": "x"}, where="here")

"""Every flow sampler against the exact flow of a Gaussian, and the contract that all of them keep."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from golden.gaussian_flow import gaussian_flow_map, gaussian_velocity
from torch import Tensor

import genzoo.diffusion  # noqa: F401  (declares the samplers)
from genzoo.core.errors import UsageError
from genzoo.core.registry import SAMPLERS
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.flow.multistep import flow_dpm_solver_pp, flow_unipc
from genzoo.diffusion.flow.paths import Flow
from genzoo.diffusion.flow.sde import FORMS, flow_sde
from genzoo.diffusion.flow.solvers import flow_euler, flow_heun, flow_ode, time_grid

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
NAMES = SAMPLERS.fitting(["flow"])
MEAN, STD = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
# name -> (sampler, lowest and highest ratio of the errors at 50 and at 100 steps)
ORDERS: dict[str, tuple[Callable[..., Tensor], float, float]] = {
    "euler": (flow_euler, 1.8, 2.2),
    "dpm order 1": (partial(flow_dpm_solver_pp, order=1), 1.8, 2.2),
    "heun": (flow_heun, 3.4, 4.6),
    "midpoint": (partial(flow_ode, method="midpoint"), 3.4, 9.0),  # 8 here: its leading error cancels
    "unipc": (flow_unipc, 3.4, 4.6),
    "dpm order 2": (flow_dpm_solver_pp, 2.8, 4.6),
    "heun3": (partial(flow_ode, method="heun3"), 7.0, 9.0),
    "rk4": (flow_ode, 12.0, 18.0),
}
STOCHASTIC: dict[str, Callable[..., Tensor]] = {
    **{f"sde {form}": partial(flow_sde, form=form) for form in FORMS if form not in ("sbdm", "constant")},
    "sde heun": partial(flow_sde, method="heun"),
    "sde tweedie": partial(flow_sde, last_step="tweedie"),
    "sde none": partial(flow_sde, last_step="none"),
    "dpm sde": partial(flow_dpm_solver_pp, stochastic=True),
    "dpm sde order 1": partial(flow_dpm_solver_pp, stochastic=True, order=1),
}


def streams(*positions: int, seed: int = 0) -> SampleStreams:
    return SampleStreams.from_seeds(seed, "sample", positions=positions)


def noise(num: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(num, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def error(sampler: Callable[..., Tensor], steps: int) -> float:
    flow, x = Flow(), noise(64, 2)
    exact = gaussian_flow_map(flow, MEAN, STD, x, 0.0, 1.0)
    return (
        (sampler(gaussian_velocity(flow, MEAN, STD), x, flow, None, steps=steps) - exact).abs().max().item()
    )


@pytest.mark.parametrize("name", ORDERS)
def test_solver_has_the_order_that_its_name_claims(name: str) -> None:
    sampler, lowest, highest = ORDERS[name]
    assert lowest < error(sampler, 50) / error(sampler, 100) < highest


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_solver_has_the_data_s_mean_and_deviation(name: str) -> None:
    flow, x = Flow(), noise(4, 8192)
    samples = STOCHASTIC[name](gaussian_velocity(flow, MEAN, STD), x, flow, streams(*range(4)), steps=250)
    # 32,768 values: standard errors 0.0028 and 0.002
    assert samples.mean().item() == pytest.approx(1.0, abs=0.01)
    assert samples.std().item() == pytest.approx(0.5, rel=0.02)


def test_constant_noise_converges_with_the_last_step() -> None:
    flow, x = Flow(), noise(4, 4096)
    velocity = gaussian_velocity(flow, MEAN, STD)
    off = {
        size: flow_sde(velocity, x, flow, streams(*range(4)), steps=250, form="constant", last_step_size=size)
        .std()
        .sub(0.5)
        .abs()
        .item()
        for size in (0.04, 1 / 250)
    }
    assert off[0.04] > 0.06  # what a fixed last step of 0.04 leaves, however many steps precede it
    assert off[1 / 250] < 0.02


def test_order_one_is_euler_on_the_linear_path() -> None:
    velocity, x = gaussian_velocity(Flow(), MEAN, STD), noise(3, 5)
    euler = flow_euler(velocity, x, Flow(), None, steps=9, shift=2.5)
    assert torch.allclose(flow_dpm_solver_pp(velocity, x, Flow(), None, steps=9, order=1, shift=2.5), euler)


@pytest.mark.parametrize("path", ["gvp", "vp"])
def test_other_paths_reach_their_own_flow_map(path: str) -> None:
    flow = Flow(path, 0.0, 0.999)
    x = noise(16, 3)
    exact = gaussian_flow_map(flow, MEAN, STD, x, flow.start, flow.end)
    velocity = gaussian_velocity(flow, MEAN, STD)
    for sampler, limit in ((flow_ode, 1e-4), (flow_heun, 2e-2), (flow_dpm_solver_pp, 2e-2)):
        assert (sampler(velocity, x, flow, None, steps=200) - exact).abs().max() < limit


def wavy(x: Tensor, t: float) -> Tensor:
    """A nonlinear stand-in for a network."""
    return x.tanh() * (1 + t) + (3 * x).sin()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_samples_are_finite_and_depend_on_their_own_stream_only(name: str, steps: int) -> None:
    sampler, x = SAMPLERS.get(name), noise(4, 2, 8, 8, dtype=torch.float32)
    batch = sampler(wavy, x, Flow(), streams(0, 1, 2, 3), steps=steps)
    assert batch.shape == x.shape
    assert batch.dtype == torch.float32
    assert torch.isfinite(batch).all()
    single = [sampler(wavy, x[i : i + 1], Flow(), streams(i), steps=steps) for i in range(4)]
    assert torch.allclose(batch, torch.cat(single), atol=1e-5)
    changed = sampler(wavy, x, Flow(), streams(0, 1, 9, 3), steps=steps)
    assert torch.equal(batch[[0, 1, 3]], changed[[0, 1, 3]])


@pytest.mark.parametrize("name", NAMES)
def test_the_velocity_is_asked_for_at_the_initial_noise_first_and_at_rising_times(name: str) -> None:
    seen: list[tuple[float, Tensor]] = []

    def velocity(x: Tensor, t: float) -> Tensor:
        seen.append((t, x))
        return wavy(x, t)

    x = noise(2, 3, dtype=torch.float32)
    SAMPLERS.get(name)(velocity, x, Flow(), streams(0, 1), steps=10)
    times = [t for t, _ in seen]
    assert torch.equal(seen[0][1], x)
    assert times[0] < 2e-6  # diffusers' UniPC begins a millionth late
    assert times == sorted(times)
    assert times[-1] <= 1.0


def test_a_shift_spends_more_steps_on_noise() -> None:
    grid = torch.tensor(time_grid(Flow(), 10, 3.0), dtype=torch.float64)
    assert grid[0] == 0.0
    assert grid[-1] == 1.0
    even = torch.linspace(0, 1, 11, dtype=torch.float64)
    # a shift moves the logit of the noise share by its logarithm
    assert torch.allclose(
        torch.logit(1 - grid[1:-1]) - torch.logit(1 - even[1:-1]), torch.tensor(3.0).log().double()
    )


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("flow_euler", {"steps": 0}, "at least 1"),
    ("flow_euler", {"shift": 0.0}, "above 0"),
    ("flow_ode", {"method": "rk5"}, "no method 'rk5'"),
    ("flow_dpm_solver_pp", {"order": 4}, "orders 1, 2 and 3"),
    ("flow_dpm_solver_pp", {"order": 3, "stochastic": True}, "orders 1 and 2 in its SDE form"),
    ("flow_sde", {"form": "sbdm"}, "infinite at t = 0"),
    ("flow_sde", {"form": "increasing-decreasing"}, "no form"),
    ("flow_sde", {"last_step_size": 1.0}, "last_step_size is 1.0"),
    ("flow_sde", {"last_step": "heun"}, "no last_step"),
    ("flow_sde", {"method": "rk4"}, "no method"),
    ("flow_sde", {"steps": 0}, "at least 1"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_impossible_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SAMPLERS.get(name)(wavy, noise(1, 2), Flow(), streams(0), **options)


def test_sbdm_is_fine_where_alpha_starts_above_zero() -> None:
    flow = Flow("linear", 1e-3, 0.999)
    assert torch.isfinite(
        flow_sde(wavy, noise(1, 2), flow, streams(0), steps=20, form="sbdm", norm=0.01)
    ).all()


def test_unipc_is_refused_off_the_linear_path() -> None:
    with pytest.raises(UsageError, match="linear path"):
        flow_unipc(wavy, noise(1, 2), Flow("gvp"), None)

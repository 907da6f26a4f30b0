"""Flow samplers against SiT's solvers and diffusers' schedulers on data that are normal, case by case."""

from __future__ import annotations

import itertools
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from golden.gaussian_flow import RecordedNoise, gaussian_flow_map, gaussian_velocity
from golden.manifest import golden_cases, golden_tensors
from torch import Tensor

from genzoo.core.registry import SAMPLERS
from genzoo.diffusion.flow.multistep import dpm_solver_pp, flow_unipc, step_through
from genzoo.diffusion.flow.paths import Flow
from genzoo.diffusion.flow.sde import final_step, flow_sde, noisy_step
from genzoo.diffusion.flow.solvers import RUNGE_KUTTA, flow_euler, follow, time_grid

SET = "learning"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
ODE, ADAPTIVE, STEP = 1e-9, 1e-6, {"f32": 1e-5, "multistep": 1e-4}


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float, what: str) -> None:
    assert ours.shape == theirs.shape, what
    scale = max(1.0, theirs.abs().max().item())
    gap = (ours.double() - theirs.double()).abs().max().item()
    assert gap <= tolerance * scale, f"{what}: off by {gap:.3g}"


def path_of(case: dict[str, Any], *, sde: bool = False) -> Flow:
    """As SiT samples: the variance-preserving path ends a thousandth early."""
    name = case.get("path", "Linear").lower()
    return Flow(name, 0.0, 1 - 1e-3) if name == "vp" and not sde else Flow(name)


def trajectory(velocity: Any, x: Tensor, times: list[float], method: str) -> Tensor:
    states = [x]
    for pair in itertools.pairwise(times):
        states.append(follow(velocity, states[-1], list(pair), method))
    return torch.stack(states)


def ode_values(case: dict[str, Any], data: dict[str, Tensor]) -> dict[str, Tensor]:
    flow = path_of(case)
    velocity = gaussian_velocity(flow, data["mean"], data["std"])
    times = time_grid(flow, case["num_steps"] - 1)
    if case["name"].endswith("reverse"):
        times = times[::-1]
    found: dict[str, Tensor] = {"times": torch.tensor(times, dtype=torch.float64)}
    for method in RUNGE_KUTTA:
        states = trajectory(velocity, data["init"], times, method)
        found[method] = states if data.get(method, states).ndim == states.ndim else states[-1]
    found["heun2"] = trajectory(velocity, data["init"], times, "heun")
    # upstream's adaptive solver reaches the exact map; its steps depend on the batch, so we have none like it
    fine = time_grid(flow, 400)
    found["dopri5"] = follow(velocity, data["init"], fine, "rk4")
    found["exact"] = gaussian_flow_map(flow, data["mean"], data["std"], data["init"], flow.start, flow.end)
    return found


def sde_values(case: dict[str, Any], data: dict[str, Tensor]) -> dict[str, Tensor]:
    flow, noise = path_of(case, sde=True), RecordedNoise(data["noise"])
    velocity = gaussian_velocity(flow, data["mean"], data["std"])
    options = {"form": case["form"], "norm": case["norm"]}
    times = time_grid(flow, case["num_steps"] - 1, end=1 - case["last_step_size"])
    states: list[Tensor] = []
    for t, after in itertools.pairwise(times):
        x = states[-1] if states else data["init"]
        states.append(
            noisy_step(velocity, x, flow, t, after - t, noise, method=case["method"].lower(), **options)
        )
    last = (case["last_step"] or "none").lower()
    x = states[-1]
    states.append(x if last == "none" else final_step(velocity, x, flow, times[-1], last, **options))
    whole = flow_sde(
        velocity, data["init"], flow, RecordedNoise(data["noise"]), method=case["method"].lower(),
        steps=case["num_steps"] - (last == "none"), last_step=last,
        last_step_size=case["last_step_size"] or None, **options,
    )  # fmt: skip
    assert_near(whole, states[-1], 1e-12, "the sampler and its steps")
    return {"times": torch.tensor(times, dtype=torch.float64), "states": torch.stack(states)}


@pytest.mark.parametrize("case", golden_cases(SET, "gaussian"), ids=lambda case: case["name"])
def test_solvers_equal_the_official_ones(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, "gaussian", case["name"])
    ours = sde_values(case, data) if "noise" in data else ode_values(case, data)
    inputs = {"mean", "std", "init", "noise"}
    assert not set(data) - inputs - set(ours)
    for key in sorted(set(data) - inputs):
        assert_near(ours[key], data[key], ADAPTIVE if key == "dopri5" else ODE, f"{case['name']}/{key}")


def scheduler_of(case: dict[str, Any]) -> Any:
    """diffusers' own scheduler, set up as the case says."""
    scheduler = getattr(diffusers, case["scheduler"])(**case["config"])
    options = dict(case.get("set_timesteps") or {})
    num = case["num_steps"]
    if "sigmas" in options:
        assert options["sigmas"] == "linspace(1, 1/n, n)"
        options["sigmas"] = np.linspace(1, 1 / num, num)
        scheduler.set_timesteps(**options)
    else:
        scheduler.set_timesteps(num, **options)
    return scheduler


def scheduler_values(case: dict[str, Any], data: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sigmas of diffusers' scheduler, or ours where the case replaces them; states by our solvers."""
    mean = data_mean(data)
    if "scheduler" not in case:
        return {"exact": gaussian_flow_map(Flow(), mean, data["std"], data["init"].double(), 0.0, 1.0)}
    velocity = gaussian_velocity(Flow(), mean, data["std"])
    sigmas = data["sigmas"]
    times = (1 - sigmas.double()).tolist()
    scheduler = scheduler_of(case)
    found = {"sigmas": scheduler.sigmas, "timesteps": scheduler.timesteps}
    if case.get("replaced_sigmas"):
        shift = 3.0 if "shift3" in case["name"] else 1.0
        found["sigmas"] = 1 - torch.tensor(time_grid(Flow(), case["num_steps"], shift), dtype=torch.float64)
    x = data["init"].double()
    if "Heun" in case["scheduler"]:
        found["states"] = heun_states(velocity, x, times)
    elif "DPM" in case["scheduler"]:
        noise = RecordedNoise(data["noise"]) if "noise" in data else None
        found["states"] = dpm_states(velocity, x, times, noise, case["config"]["solver_order"])
    elif "UniPC" in case["scheduler"]:
        found["states"] = unipc_states(case, velocity, data["init"], len(times))
    elif "noise" in data:
        found["states"] = renoised(velocity, x, sigmas.double(), data["noise"])
    else:
        found["states"] = trajectory(velocity, x, times, "euler")
    return found


def data_mean(data: dict[str, Tensor]) -> Tensor:
    """Of the data, one value an axis. Some cases hold a row for each sample there, which is not it."""
    if data["mean"].ndim == 1:
        return data["mean"]
    for case in golden_cases(SET, "schedulers"):
        other = golden_tensors(SET, "schedulers", case["name"])
        if other["mean"].ndim == 1 and torch.equal(other["init"], data["init"]):
            return other["mean"]
    raise AssertionError("no case of the file says what the data's mean is")


def heun_states(velocity: Any, x: Tensor, times: list[float]) -> Tensor:
    """Predictor and corrector of each interval; its last is an Euler step."""
    unique = [times[0], *times[1::2]]
    states = [x]
    for index, pair in enumerate(itertools.pairwise(unique)):
        predicted = follow(velocity, x, list(pair), "euler")
        last = index == len(unique) - 2
        x = predicted if last else follow(velocity, x, list(pair), "heun")
        states += [predicted] if last else [predicted, x]
    return torch.stack(states)


def dpm_states(velocity: Any, x: Tensor, times: list[float], noise: Any, order: int) -> Tensor:
    """Every state, seen where the solver asks for the velocity."""
    states: list[Tensor] = []

    def watched(state: Tensor, t: float) -> Tensor:
        states.append(state)
        return velocity(state, t)

    final = dpm_solver_pp(watched, x, Flow(), times, noise, order=order)
    return torch.stack([*states, final])


def unipc_states(case: dict[str, Any], velocity: Any, x: Tensor, num: int) -> Tensor:
    states: list[Tensor] = []

    def watched(state: Tensor, t: float) -> Tensor:
        states.append(state)
        return velocity(state, t)

    final = step_through(watched, x, scheduler_of(case))
    if case["name"].endswith("uniform"):
        assert_near(flow_unipc(velocity, x, Flow(), None, steps=num - 1), final, 1e-6, "our own grid")
    return torch.stack([*states, final])


def renoised(velocity: Any, x: Tensor, sigmas: Tensor, noise: Tensor) -> Tensor:
    """diffusers' stochastic mode: the predicted data under fresh noise. It is no sampler of the SDE."""
    states = [x]
    for index, (sigma, after) in enumerate(itertools.pairwise(sigmas.tolist())):
        data = states[-1] + sigma * velocity(states[-1], 1 - sigma)
        states.append((1 - after) * data + after * noise[index])
    return torch.stack(states)


@pytest.mark.parametrize("case", golden_cases(SET, "schedulers"), ids=lambda case: case["name"])
def test_solvers_equal_diffusers_schedulers(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, "schedulers", case["name"])
    ours = scheduler_values(case, data)
    inputs = {"mean", "std", "init", "noise"}
    assert not set(data) - inputs - set(ours)
    tolerance = STEP["f32" if "Flow" in case.get("scheduler", "Flow") else "multistep"]
    for key in sorted(set(data) - inputs):
        scale = 1000 if key == "timesteps" else 1
        assert_near(ours[key] / scale, data[key] / scale, tolerance, f"{case['name']}/{key}")


def test_our_uniform_grid_is_the_one_diffusers_is_exact_on() -> None:
    cases = [case for case in golden_cases(SET, "schedulers") if case["name"] == "euler_uniform"]
    for case in cases:
        data = golden_tensors(SET, "schedulers", case["name"])
        velocity = gaussian_velocity(Flow(), data["mean"], data["std"])
        ours = flow_euler(velocity, data["init"], Flow(), None, steps=case["num_steps"])
        assert_near(ours, data["states"][-1], STEP["f32"], case["name"])


def test_no_sampler_renoises_the_predicted_data() -> None:
    for name in SAMPLERS.fitting(["flow"]):
        assert "stochastic_sampling" not in SAMPLERS.get(name).__kwdefaults__

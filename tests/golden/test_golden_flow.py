"""Paths, losses and times of flows against SiT, LightningDiT, diffusers and closed forms, case by case."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from torch import Tensor

from genzoo.diffusion.flow.losses import prediction_mse, sd3_weight, velocity_mse
from genzoo.diffusion.flow.paths import (
    Flow,
    interpolate,
    noise_from_velocity,
    path_velocity,
    score_from_velocity,
    velocity_from,
    x_1_from_velocity,
)
from genzoo.diffusion.flow.sde import FORMS, diffusion
from genzoo.diffusion.flow.solvers import time_grid
from genzoo.diffusion.flow.times import Times, dynamic_mu, logit_normal_density, shifted

SET = "learning"
# relative to the largest value; the manifest's own tolerances by the precision of what was recorded
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-6}
DRAWN = re.compile(r"(?P<kind>logit_normal|density|shifted)_(?P<first>-?[\d.]+)(_(?P<second>[\d.]+))?")
WEIGHTS = {"velocity": "velocity", "likelihood": "likelihood", "none": "none"}


def assert_cases_equal(file: str, case: dict[str, Any], ours: dict[str, Tensor], inputs: set[str]) -> None:
    """Every recorded tensor beside the inputs is computed, and equal."""
    recorded = golden_tensors(SET, file, case["name"])
    assert set(recorded) == set(case["keys"])
    assert not set(recorded) - inputs - set(ours), f"no rule computes {set(recorded) - inputs - set(ours)}"
    for key in sorted(set(recorded) - inputs):
        theirs, mine = recorded[key], torch.as_tensor(ours[key]).double()
        assert mine.shape == theirs.shape, key
        scale = max(theirs.abs().max().item(), 1e-30)
        gap = (mine - theirs.double()).abs().max().item()
        assert gap <= TOLERANCE[theirs.dtype] * scale, (
            f"{case['name']}/{key}: off by {gap:.3g} of {scale:.3g}"
        )


def transport_values(case: dict[str, Any], data: dict[str, Tensor]) -> dict[str, Tensor]:
    flow, t = Flow(case["path"].lower()), data["t"]
    x_t = interpolate(data["data"], data["noise"], t, flow)
    found = {"x_t": x_t, "u_t": path_velocity(data["data"], data["noise"], t, flow)}
    if "velocity" not in data:
        return found
    c, spread, v = flow.coefficients(t), flow.at(t, x_t), data["velocity"]
    forms = {
        f"diffusion_{form}": [diffusion(form, case["norm"], float(at), flow) for at in t] for form in FORMS
    }
    return {
        **found,
        **c._asdict(),
        # SiT's drift of the score form is minus the linear term, and its variance is lambda
        "drift_mean": -spread.d_alpha / spread.alpha * x_t,
        "drift_var": c.diffusion,
        "score_from_velocity": score_from_velocity(x_t, v, spread),
        "noise_from_velocity": noise_from_velocity(x_t, v, spread),
        "data_from_velocity": x_1_from_velocity(x_t, v, spread),
        "velocity_from_score": velocity_from("score", x_t, data["score"], spread),
        **{key: torch.tensor(values, dtype=torch.float64) for key, values in forms.items()},
    }


@pytest.mark.parametrize("case", golden_cases(SET, "transport"), ids=lambda case: case["name"])
def test_paths_equal_the_official_ones(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, "transport", case["name"])
    inputs = {"t", "noise", "data", "velocity", "score"}
    assert_cases_equal("transport", case, transport_values(case, data), inputs)


def loss_values(case: dict[str, Any], data: dict[str, Tensor]) -> dict[str, Tensor]:
    if "path" not in case:
        return direction_values(case, data)
    flow, t, prediction = Flow(case["path"].lower()), data["t"], case["prediction"]
    x_t = interpolate(data["data"], data["noise"], t, flow)
    found = {"x_t": x_t, "u_t": path_velocity(data["data"], data["noise"], t, flow)}
    inputs = (data["model_output"], data["data"], x_t, data["noise"], t, flow)
    for weighting in ("none", "velocity", "likelihood"):
        # upstream leaves the weighting out for velocity prediction
        used = "none" if prediction == "velocity" else weighting
        loss = prediction_mse(*inputs, weighting=used, prediction=prediction)["loss"]
        found[f"loss_{weighting}"] = loss
    as_velocity = velocity_mse(*inputs, prediction=prediction, smallest=1e-9)["loss"]
    assert torch.allclose(as_velocity, found["loss_velocity"], rtol=1e-10)
    return found


def direction_values(case: dict[str, Any], data: dict[str, Tensor]) -> dict[str, Tensor]:
    flow, axis = Flow("linear"), case["channel_axis"]
    x_t = interpolate(data["data"], data["noise"], data["t"], flow)
    inputs = (data["model_output"], data["data"], x_t, data["noise"], data["t"], flow)
    terms = velocity_mse(*inputs, direction_weight=1.0, channel_axis=axis)
    return {"loss": terms["mse"], "cos_loss": terms["direction"], "total": terms["loss"].mean()}


@pytest.mark.parametrize("case", golden_cases(SET, "losses"), ids=lambda case: case["name"])
def test_losses_equal_the_official_ones(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, "losses", case["name"])
    assert_cases_equal("losses", case, loss_values(case, data), {"t", "noise", "data", "model_output"})


def time_values(case: dict[str, Any], data: dict[str, Tensor]) -> dict[str, Tensor]:
    if "raw" in data:
        kind = case["name"].removeprefix("diffusers_")
        options = case["options"]
        times = {
            "logit_normal": lambda: Times(
                "logit_normal", mean=options["logit_mean"], std=options["logit_std"]
            ),
            "mode": lambda: Times("mode", mode_scale=options["mode_scale"]),
            "none": Times,
        }[kind]()
        return {"u": times.shaped(data["raw"])}
    if "sigmas" in data:
        return {
            f"weight_{kind}": sd3_weight(kind, data["sigmas"]) for kind in ("sigma_sqrt", "cosmap", "none")
        }
    if "tokens" in data:
        return shift_values(case, data["tokens"])
    if "timestep_shift" in case:
        grid = time_grid(Flow(), case["num_steps"] - 1, 1 / case["timestep_shift"])
        t = torch.tensor(grid, dtype=torch.float64)
        return {"t": t, "sigma": 1 - t}
    return {key: drawn(key, data) for key in data if DRAWN.fullmatch(key)}


def drawn(key: str, data: dict[str, Tensor]) -> Tensor:
    match = DRAWN.fullmatch(key)
    assert match
    first, second = float(match["first"]), float(match["second"] or 0)
    if match["kind"] == "shifted":
        return shifted(data["uniform"], first)
    if match["kind"] == "density":
        return logit_normal_density(data["t"], first, second)
    return Times("logit_normal", mean=first, std=second).shaped(data["normal"])


def shift_values(case: dict[str, Any], tokens: Tensor) -> dict[str, Tensor]:
    base, most = case["base_tokens"], case["max_tokens"]
    ends = {"base": case["base_shift"], "highest": case["max_shift"]}
    mu = [dynamic_mu(float(count), base, most, **ends) for count in tokens]
    by_resolution = Times(shift="by_resolution", base_tokens=base)
    found = {
        "mu": mu,
        "shift": [math.exp(value) for value in mu],
        "shift_sqrt_ratio": [by_resolution.factor(int(count)) for count in tokens],
    }
    return {key: torch.tensor(value, dtype=torch.float64) for key, value in found.items()}


@pytest.mark.parametrize("case", golden_cases(SET, "times"), ids=lambda case: case["name"])
def test_times_equal_the_recorded_ones(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, "times", case["name"])
    inputs = {"normal", "uniform", "raw", "sigmas", "tokens"} | (
        {"t"} if "timestep_shift" not in case else set()
    )
    assert_cases_equal("times", case, time_values(case, data), inputs)

"""Averages of weights against DiT's rule and diffusers' EMAModel, case by case."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from torch import Tensor, nn

from genzoo.training.config import TrainConfig
from genzoo.training.ema import ParameterAverage, decay_of, growth_of
from genzoo.training.power_average import (
    Profile,
    coefficients,
    correlations,
    gamma_of,
    profile_gap,
    sigma_of,
)
from genzoo.training.profiles import PowerAverages

SET, FILE = "learning", "ema"
TOLERANCE = 1e-10
CASES = golden_cases(SET, FILE)
PLAIN = [case for case in CASES if "decay" in case or "options" in case]


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float, what: str) -> None:
    assert ours.shape == theirs.shape, what
    gap = (ours.double() - theirs.double()).abs().max().item()
    assert gap <= tolerance * max(theirs.abs().max().item(), 1e-30), f"{what}: off by {gap:.3g}"


def config_of(case: dict[str, Any]) -> TrainConfig:
    """DiT's rule is our default; diffusers' options have our names with another beginning."""
    if "decay" in case:
        return TrainConfig(steps=1, batch_size=1, ema_decay=case["decay"])
    renamed = {"use_ema_warmup": "ema_use_warmup"}
    options = {renamed.get(key, f"ema_{key}"): value for key, value in case["options"].items()}
    grows = {} if options.get("ema_use_warmup") else {"ema_ramp": True}
    return TrainConfig(steps=1, batch_size=1, **options, **grows)


def averages_along(case: dict[str, Any], theta: Tensor) -> Tensor:
    """The average after every step of the recorded trajectory, (steps, n)."""
    parameter = nn.Parameter(theta[0].clone())
    average = ParameterAverage({"theta": parameter}, config_of(case))
    found = []
    for row in theta[1:]:
        with torch.no_grad():
            parameter.copy_(row)
        average.update()
        found.append(average.tensors()["theta"].clone())
    return torch.stack(found)


@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case["name"])
def test_plain_averages_equal_the_recorded_ones(case: dict[str, Any]) -> None:
    data, config = golden_tensors(SET, FILE, case["name"]), config_of(case)
    averages, steps = averages_along(case, data["theta"]), len(data["theta"]) - 1
    ours: dict[str, Tensor] = {"average": averages[-1]}
    if "every" in case:
        ours["averages"] = averages[case["every"] - 1 :: case["every"]]
        decays = [
            decay_of(n, config.ema_decay or 0.0, config, growth_of(config)) for n in range(1, steps + 1)
        ]
        ours["decays"] = torch.tensor(decays, dtype=torch.float64)
    else:
        decay = case["decay"]
        ours["mean_age"] = torch.tensor(decay * (1 - decay**steps) / (1 - decay), dtype=torch.float64)
    assert not set(data) - {"theta"} - set(ours)
    for key in sorted(set(data) - {"theta"}):
        assert_near(ours[key], data[key], TOLERANCE, f"{case['name']}/{key}")


LENGTHS = [case for case in CASES if "sigma_rel" in case["keys"]]
COMBINED = [case for case in CASES if "targets" in case]


@pytest.mark.parametrize("case", LENGTHS, ids=lambda case: case["name"])
def test_lengths_and_exponents_equal_the_recorded_ones(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, FILE, case["name"])
    gammas = [gamma_of(float(sigma)) for sigma in data["sigma_rel"]]
    ours = {
        "gamma": torch.tensor(gammas, dtype=torch.float64),
        "sigma_back": torch.tensor([sigma_of(float(g)) for g in data["gamma"]], dtype=torch.float64),
    }
    assert set(data) == {"sigma_rel", *ours}
    for key, value in ours.items():
        assert_near(value, data[key], 1e-9, f"{case['name']}/{key}")


def tracked(theta: Tensor, sigma: float) -> Tensor:
    """The average of one length after every step, by the recursion of training: (steps, n)."""
    parameter = nn.Parameter(theta[0].clone())
    average = PowerAverages({"theta": parameter}, [sigma])
    found = []
    for step, row in enumerate(theta[1:], 1):
        with torch.no_grad():
            parameter.copy_(row)
        average.update(step)
        found.append(next(iter(average.tensors().values())).clone())
    return torch.stack(found)


def nearest(sigma: float, known: list[float]) -> float:
    return min(known, key=lambda other: abs(other - sigma))


def combined_values(case: dict[str, Any], data: dict[str, Tensor]) -> dict[str, Tensor]:
    runs = {sigma: tracked(data["theta"], sigma) for sigma in case["stored_sigma"]}
    steps = data["snapshot_step"].long().tolist()
    lengths = [
        min(case["stored_sigma"], key=lambda known: abs(known - s)) for s in data["snapshot_sigma"].tolist()
    ]
    snapshots = torch.stack([runs[sigma][step - 1] for step, sigma in zip(steps, lengths, strict=True)])
    profiles = [Profile(step, gamma_of(sigma)) for step, sigma in zip(steps, lengths, strict=True)]
    found = {"snapshots": snapshots, "correlation": torch.from_numpy(correlations(profiles))}
    for target in case["targets"]:
        sigma, _, end = target["key"].partition("_at_")
        wanted = Profile(int(end), gamma_of(float(sigma)))
        kept = [index for index, step in enumerate(steps) if step <= int(end)]
        stored = [profiles[index] for index in kept]
        raw = coefficients(stored, wanted, normalised=False)
        weights = coefficients(stored, wanted)
        found[f"raw_coefficients_{target['key']}"] = torch.from_numpy(raw)
        found[f"coefficients_{target['key']}"] = torch.from_numpy(weights)
        rebuilt = torch.from_numpy(weights) @ snapshots[kept]
        direct = tracked(data["theta"], float(sigma))[int(end) - 1]
        found[f"reconstructed_{target['key']}"], found[f"direct_{target['key']}"] = rebuilt, direct
        assert profile_gap(stored, weights, wanted) == pytest.approx(
            target["profile_gap"], rel=0.02, abs=1e-6
        )
        gap = ((rebuilt - direct).norm() / direct.norm()).item()
        assert gap <= 1.5 * target["weights_gap"] + 1e-12
    return found


@pytest.mark.parametrize("case", COMBINED, ids=lambda case: case["name"])
def test_combined_averages_equal_the_recorded_ones(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, FILE, case["name"])
    ours, inputs = combined_values(case, data), {"theta", "snapshot_step", "snapshot_sigma"}
    assert not set(data) - inputs - set(ours)
    for key in sorted(set(data) - inputs):
        solved = key.startswith(("coefficients", "raw_coefficients", "reconstructed"))
        assert_near(ours[key], data[key], 1e-6 if solved else TOLERANCE, f"{case['name']}/{key}")


def test_every_case_is_computed() -> None:
    assert len(PLAIN) + len(LENGTHS) + len(COMBINED) == len(CASES)

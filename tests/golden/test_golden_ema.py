"""Averages of weights against DiT's rule and diffusers' EMAModel, case by case."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from torch import Tensor, nn

from genzoo.training.config import TrainConfig
from genzoo.training.ema import ParameterAverage, decay_of, growth_of

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

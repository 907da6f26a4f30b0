"""The table of held-out losses, its variances and their gains against a recorded one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden.gaussian_flow import gaussian_velocity
from golden.manifest import golden_cases, golden_tensors
from torch import Tensor

from genzoo.diffusion.flow.losses import velocity_mse
from genzoo.diffusion.flow.paths import Flow, interpolate
from genzoo.training.held_out import HeldOutTable, paired_gain, stratified, variances

SET, FILE = "learning", "heldout"
TOLERANCE = 1e-9


def losses(case: dict[str, Any], data: dict[str, Tensor], t: Tensor, spoil: float) -> Tensor:
    """(samples, strata) of the best velocity for N(mean, std^2) plus spoil sin(3 x)."""
    flow, columns = Flow(), []
    best = gaussian_velocity(flow, data["mean"], torch.tensor(case["std"], dtype=torch.float64))
    for stratum in range(case["strata"]):
        times, noise = t[:, stratum], data["noise"][:, stratum]
        x_t = interpolate(data["data"], noise, times, flow)
        rows = [best(x_t[i : i + 1], float(times[i])) for i in range(len(x_t))]
        output = torch.cat(rows) + spoil * (3 * x_t).sin()
        columns.append(velocity_mse(output, data["data"], x_t, noise, times, flow)["loss"])
    return torch.stack(columns, 1)


def optimal_loss(std: float) -> Tensor:
    """The integral of s^2 / (t^2 s^2 + (1 - t)^2) by the midpoint rule."""
    t = (torch.arange(2_000_000, dtype=torch.float64) + 0.5) / 2_000_000
    return (std**2 / (t**2 * std**2 + (1 - t) ** 2)).mean().reshape(1)


def values(case: dict[str, Any], data: dict[str, Tensor]) -> dict[str, Tensor]:
    columns = [stratified(data["jitter"][:, k], k, case["strata"]) for k in range(case["strata"])]
    t = torch.stack(columns, 1)
    first, second = (losses(case, data, t, case[f"spoil_{name}"]) for name in ("a", "b"))
    parts = variances(first)
    difference = first - second
    numbers = {
        "total_variance": parts.total,
        "within_variance": parts.within,
        "between_variance": parts.between,
        "paired_variance": difference.var(unbiased=False).item(),
        "independent_variance": (first.var(unbiased=False) + second.var(unbiased=False)).item(),
    }
    assert parts.total == pytest.approx(parts.within + parts.between, rel=1e-12)
    assert paired_gain(first, second) == pytest.approx(
        numbers["independent_variance"] / numbers["paired_variance"], rel=1e-9
    )
    table = HeldOutTable(first, torch.ones_like(first))
    strata = [table.values()[f"stratum/{k}"] for k in range(case["strata"])]
    return {
        "t": t,
        "losses_a": first,
        "losses_b": second,
        "losses_optimal": losses(case, data, t, 0.0),
        "strata_means_a": torch.tensor(strata, dtype=torch.float64),
        "exact_optimal": optimal_loss(case["std"]),
        **{name: torch.tensor([value], dtype=torch.float64) for name, value in numbers.items()},
    }


@pytest.mark.parametrize("case", golden_cases(SET, FILE), ids=lambda case: case["name"])
def test_held_out_tables_equal_the_recorded_ones(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, FILE, case["name"])
    ours, inputs = values(case, data), {"mean", "data", "noise", "jitter"}
    assert not set(data) - inputs - set(ours)
    for key in sorted(set(data) - inputs):
        gap = (ours[key] - data[key]).abs().max().item()
        assert gap <= TOLERANCE * data[key].abs().max().item(), f"{case['name']}/{key}: off by {gap:.3g}"

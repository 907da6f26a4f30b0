"""Learning rates and weight decay of VAR's and CAR's released trainer, point by point."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from golden.manifest import golden_root
from torch import nn

from genzoo.training.optim import build_optimizer, learning_rate, set_step

CURVES: list[dict[str, Any]] = json.loads((golden_root() / "car" / "lr_wd_schedule.json").read_text())
# the released name -> ours; a number after "lin" is where the line bends, but lin0 holds the peak for 5 %
NAMES: dict[str, dict[str, Any]] = {
    "lin0": {"schedule": "hold_linear", "hold": 0.05},
    "lin00": {"schedule": "hold_linear"},
    "lin": {"schedule": "hold_linear", "hold": 0.15},
    "cos": {"schedule": "hold_cosine"},
    "exp": {"schedule": "hold_exponential", "hold": 0.15},
}


def ours(released: str) -> dict[str, Any]:
    return NAMES.get(released) or {"schedule": "bent_linear", "hold": float(released.removeprefix("lin"))}


@pytest.mark.parametrize("recorded", CURVES, ids=lambda one: f"{one['sche']}-{one['wpe']}")
def test_rates_and_decay_follow_the_recorded_curve(recorded: dict[str, Any]) -> None:
    weight, bias = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
    bias._no_weight_decay = True  # type: ignore[attr-defined]
    options = {
        "name": "adamw",
        "lr": recorded["peak_lr"],
        "warmup_steps": recorded["warmup_it"],
        "warmup_start": recorded["wp0"],
        "final": recorded["wpe"],
        "weight_decay": recorded["wd"],
        "final_weight_decay": recorded["wd_end"],
        **ours(recorded["sche"]),
    }
    built = build_optimizer({"weight": weight, "bias": bias}, options)
    rate = learning_rate(built, recorded["max_it"])
    assert recorded["points"]
    for step, point in recorded["points"].items():
        set_step(built, int(step), recorded["max_it"], rate(int(step)))
        decayed, exempt = built.optimizer.param_groups
        assert decayed["lr"] == exempt["lr"] == pytest.approx(point["lr"], rel=1e-9)
        assert decayed["weight_decay"] == pytest.approx(point["wd"], rel=1e-9)
        assert exempt["weight_decay"] == 0

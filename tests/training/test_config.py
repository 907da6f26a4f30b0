"""Batch arithmetic and the checks of the `train:` section."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from genzoo.core.errors import RecipeError
from genzoo.training.batch_plan import plan_batch, smaller_micro_batches
from genzoo.training.config import TrainConfig
from genzoo.training.optim import build_optimizer, learning_rate

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("micro", [None, 1, 2, 3])
def test_the_parts_always_multiply_to_the_global_batch(processes: int, micro: int | None) -> None:
    plan = plan_batch(72, micro, processes)
    assert plan.per_device * plan.accumulation * plan.processes == 72
    assert plan.per_device == (micro or 72 // processes)


def test_the_formula_is_readable() -> None:
    assert str(plan_batch(256, 32, 2)) == "global batch 256 = 32 per device x 4 accumulation x 2 processes"


def test_an_uneven_share_names_the_nearest_batches() -> None:
    with pytest.raises(RecipeError, match=r"(?s)10 cannot be shared.*use 9 or 12, or one of 1, 2, 5, 10"):
        plan_batch(10, None, 3)


def test_a_micro_batch_that_does_not_divide_lists_the_valid_ones() -> None:
    with pytest.raises(RecipeError, match=r"(?s)5 does not divide the 12 samples.*1, 2, 3, 4, 6, 12"):
        plan_batch(24, 5, 2)


def test_smaller_micro_batches_are_valid_and_descend() -> None:
    assert smaller_micro_batches(plan_batch(24, 6, 2)) == [4, 3, 2, 1]


def test_all_wrong_values_are_told_at_once() -> None:
    wrong = {"steps": 0, "batch_size": -1, "precision": "fp8", "ema_decay": 1.0, "clip_grad_norm": 0.0}
    with pytest.raises(RecipeError) as caught:
        TrainConfig(**wrong)
    assert all(f"train.{name}" in str(caught.value) for name in wrong)


@pytest.mark.parametrize("path", sorted((CONFIGS / "train").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_train_sections_are_valid(path: Path) -> None:
    assert TrainConfig(**yaml.safe_load(path.read_text())).steps > 0


@pytest.mark.parametrize("path", sorted((CONFIGS / "optim").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_optim_sections_build(path: Path) -> None:
    import torch

    settings = yaml.safe_load(path.read_text())
    settings["lr"] = float(settings["lr"])
    settings |= {"eps": float(settings["eps"])} if "eps" in settings else {}
    optimization = build_optimizer(
        {"w": torch.nn.Parameter(torch.ones(2)), "blocks.0.fc1.weight": torch.nn.Parameter(torch.ones(3, 2))},
        settings,
    )
    assert learning_rate(optimization, 1000)(500) > 0

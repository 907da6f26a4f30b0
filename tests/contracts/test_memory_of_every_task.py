"""A dry run foretells the memory of every task with every model that it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from contract_cases import Case
from smallest import pairs
from step_memory_truth import foretold, taken

from genzoo.training.config import TrainConfig
from genzoo.training.trainer import Trainer

PAIRS = list(pairs())
COUNTS_VALUES = {("vqvae", "vqvae")}  # how often each code is used


@pytest.mark.parametrize(("task", "model"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_memory_is_foretold(build: Callable[[str, str], Case], task: str, model: str, tmp_path: Path) -> None:
    case = build(task, model)
    config = TrainConfig(steps=2, batch_size=2, tensorboard=False)
    trainer = Trainer(case.task, case.dataset, config, optim={"name": "adamw", "lr": 1e-4}, output=tmp_path)
    memory = foretold(trainer)
    assert memory.how == ("in a pass" if (task, model) in COUNTS_VALUES else "on fake tensors")
    assert memory.total - memory.helpers == pytest.approx(taken(trainer), rel=0.1)

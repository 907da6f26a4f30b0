"""A run whose data no longer answer ends with a checkpoint and a name."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import ToyDataset, toy_trainer

from genzoo.core.checkpoint import checkpoint_steps
from genzoo.core.errors import RecipeError
from genzoo.data.loader_workers import LoaderError
from genzoo.training.config import TrainConfig


@pytest.mark.timeout(120)
def test_a_run_saves_before_it_ends_at_such_an_item(tmp_path: Path, saving: dict[str, Any]) -> None:
    class HangingToys(ToyDataset):
        reads = 0

        def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
            type(self).reads += 1
            if self.reads > 20:  # in the fourth batch of six
                threading.Event().wait()
            return super().fetch(index, generator)

    trainer = toy_trainer(tmp_path, dataset=HangingToys(), loader_timeout=1.0, checkpoint_every=100, **saving)
    with pytest.raises(LoaderError, match="no batch came"):
        trainer.fit()
    assert list(checkpoint_steps(tmp_path / "checkpoints")) == [3]


@pytest.mark.parametrize("seconds", [0, -1.5])
def test_no_time_at_all_is_refused(seconds: float) -> None:
    with pytest.raises(RecipeError, match=r"train\.loader_timeout: must be positive"):
        TrainConfig(steps=1, batch_size=1, loader_timeout=seconds)

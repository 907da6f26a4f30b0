"""How far a loss is from `fit`: what a researcher reads between the two in a traceback."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import ToyTask, toy_task, toy_trainer

from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LossOutput


class Boom(Exception):
    """Raised where the arithmetic of a loss stands."""


def broken_loss(noise: Tensor) -> Tensor:
    raise Boom


class BrokenTask(ToyTask):
    def loss(self, model: torch.nn.Module, batch: Batch, generator: SampleStreams) -> LossOutput:
        return LossOutput(broken_loss(batch["noise"]))


def test_five_frames_from_fit_to_the_loss_function(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, task=BrokenTask(toy_task().model))
    with pytest.raises(Boom) as caught:
        trainer.fit()
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    between = names[names.index("fit") :]
    assert between == ["fit", "_backward", "micro_loss", "loss", "broken_loss"]

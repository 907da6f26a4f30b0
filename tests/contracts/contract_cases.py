"""A task with a model on data, ready to be asked what the contracts say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from genzoo.api.training.preview_hook import options_from_data
from genzoo.core.recipe import Recipe
from genzoo.core.seeds import SampleStreams
from genzoo.data.sample_stream import SampleStream


@dataclass(frozen=True)
class Case:
    """A task with a model, on data; its weights are moved away from where layers begin closed."""

    recipe: Recipe
    task: Any
    dataset: Any

    def batch(self, *positions: int) -> dict[str, Any]:
        """The prepared samples at these positions."""
        found, _ = SampleStream(self.dataset, seed=0).fetch_batch(positions)
        return self.task.prepare_batch(found, streams(*positions, purpose="train"))

    def conditions(self, num: int) -> Any:
        """What the task samples on by default, or from its data."""
        return self.task.conditions(num, **options_from_data(self.task, self.dataset, num))


def streams(*positions: int, purpose: str = "sample") -> SampleStreams:
    return SampleStreams.from_seeds(3, purpose, positions=positions)


@torch.no_grad()
def moved(model: nn.Module, seed: int = 0, scale: float = 0.1, *, frozen: bool = False) -> nn.Module:
    """The model with every trainable tensor moved, and the frozen ones too if asked, so that all matter."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad or frozen:
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model

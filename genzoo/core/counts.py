"""Counts that training keeps in a model, such as how often a codebook was used: saved with the run, not with
the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Count(nn.Module):
    """A whole number that starts at 0.

    It is a buffer, so that it follows its model everywhere, but no key of the state dict: files of weights
    keep their layouts. Checkpoints hold it in their state, see `counts_of`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.value: Tensor
        self.register_buffer("value", torch.zeros((), dtype=torch.int64), persistent=False)

    def __int__(self) -> int:
        return int(self.value)

    def add(self, number: int = 1) -> None:
        """Count on, in place."""
        self.value += number


def counts_of(model: nn.Module) -> dict[str, int]:
    """The counts in a model by their modules' names."""
    return {name: int(module) for name, module in model.named_modules() if isinstance(module, Count)}


def restore_counts(model: nn.Module, saved: Mapping[str, int]) -> None:
    """Continue from saved counts. Those that an older checkpoint did not save stay as they are."""
    for name, module in model.named_modules():
        if isinstance(module, Count) and name in saved:
            module.value.fill_(saved[name])

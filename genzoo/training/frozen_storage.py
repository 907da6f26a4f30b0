"""Frozen weights of a run in half precision, stored in its 16 bits: half the memory, and the same steps.

Under autocast a linear layer or a convolution reads its weights rounded to the run's precision, however they
are stored. What is never trained can lie in memory rounded: no loss and no gradient changes by a bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from genzoo.core.errors import RecipeError
from genzoo.nn.casting import exact_parameters

KINDS = (nn.Linear, nn.modules.conv._ConvNd)
STORED: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


class FrozenStorage:
    """Keeps a model's frozen weights in 16 bits, but for those that autocast does not round.

    What runs outside autocast, such as sampling within a training, does so in `widened`. Raises RecipeError
    when there is nothing to keep so.
    """

    def __init__(self, model: nn.Module, precision: str) -> None:
        self.dtype = STORED[precision]
        self.parameters = list(rounded_by_autocast(model))
        if not self.parameters:
            raise RecipeError(
                "train.frozen_in_16_bits: the model has no frozen linear layer or convolution",
                fix="leave it out",
            )
        self._store(self.dtype)

    @contextlib.contextmanager
    def widened(self) -> Iterator[None]:
        """Within the block they are float32 again, with the rounded values."""
        try:
            self._store(torch.float32)
            yield
        finally:
            self._store(self.dtype)

    def _store(self, dtype: torch.dtype) -> None:
        for parameter in self.parameters:
            parameter.data = parameter.data.to(dtype)


def rounded_by_autocast(model: nn.Module) -> Iterator[nn.Parameter]:
    """Frozen float32 parameters that linear layers and convolutions read, and nothing else; each once."""
    kept = exact_parameters(model)
    for module in model.modules():
        if not isinstance(module, KINDS):
            kept |= {id(parameter) for parameter in module.parameters(recurse=False)}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) in kept or parameter.requires_grad or parameter.dtype != torch.float32:
                continue
            kept.add(id(parameter))
            yield parameter

"""The moving average of the trainable parameters: diffusers' EMAModel, addressed by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from genzoo.core.errors import CheckpointError
from genzoo.core.model_state import assign, require_same, whole
from genzoo.training.config import TrainConfig


class ParameterAverage:
    """Shadow copies of parameters, moved a little towards them after each optimizer step."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: TrainConfig) -> None:
        self.parameters = dict(parameters)
        self._schedule = [(0, config.ema_decay), *config.ema_schedule]
        self._average = EMAModel(
            self.parameters.values(),
            decay=config.ema_decay,
            min_decay=config.ema_min_decay,
            update_after_step=config.ema_update_after_step,
            use_ema_warmup=config.ema_use_warmup,
            inv_gamma=config.ema_inv_gamma,
            power=config.ema_power,
            foreach=True,
        )

    def update(self) -> None:
        """Follow the parameters after an optimizer step."""
        done = self._average.optimization_step
        self._average.decay = [decay for start, decay in self._schedule if start <= done][-1]
        self._average.step(self.parameters.values())

    def tensors(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return {name: whole(tensor) for name, tensor in self._shadows().items()}

    def state(self) -> dict[str, Any]:
        """What `restore` needs beside the tensors."""
        return {"updates": self._average.optimization_step}

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, where: str) -> None:
        """Continue from saved averages. Raises CheckpointError when names, shapes or dtypes differ."""
        require_same(self._shadows(), tensors, where=where, what="the moving average (train.ema_decay)")
        if not isinstance(state.get("updates"), int):
            raise CheckpointError("the checkpoint lacks the number of EMA updates", where=where)
        assign(self._shadows(), tensors)
        self._average.optimization_step = state["updates"]

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the block the parameters hold their averages; afterwards they are as before, bit for bit."""
        parameters = list(self.parameters.values())
        self._average.store(parameters)
        self._average.copy_to(parameters)
        try:
            yield
        finally:
            self._average.restore(parameters)

    def _shadows(self) -> dict[str, Tensor]:
        return dict(zip(self.parameters, self._average.shadow_params, strict=True))

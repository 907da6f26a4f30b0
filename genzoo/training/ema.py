"""The moving average of the trainable parameters, by name."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genzoo.core.errors import CheckpointError
from genzoo.core.model_state import assign, require_same
from genzoo.core.sharded import own_parts
from genzoo.training.config import TrainConfig

Growth = Literal["constant", "ramp", "warmup"]
logger = logging.getLogger(__name__)


class ParameterAverage:
    """Shadow copies of parameters, moved a little towards them after each optimizer step."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: TrainConfig) -> None:
        self.parameters = dict(parameters)
        self.config = config
        self.updates = 0
        self.growth = growth_of(config)
        self._shadows = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        self._schedule = [(0, config.ema_decay or 0.0), *config.ema_schedule]

    @torch.no_grad()
    def update(self) -> None:
        """Follow the parameters after an optimizer step."""
        peak = [decay for start, decay in self._schedule if start <= self.updates][-1]
        self.updates += 1
        shadows = own_parts(self._shadows.values())
        gaps = torch._foreach_sub(shadows, own_parts(self.parameters.values()))
        torch._foreach_sub_(shadows, gaps, alpha=1 - decay_of(self.updates, peak, self.config, self.growth))

    def tensors(self) -> dict[str, Tensor]:
        """The averages by parameter name; those of a sharded model stay sharded."""
        return dict(self._shadows)

    def state(self) -> dict[str, Any]:
        """What `restore` needs beside the tensors."""
        return {"updates": self.updates, "growth": self.growth}

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, where: str) -> None:
        """Continue from saved averages. Raises CheckpointError when names, shapes or dtypes differ."""
        require_same(self._shadows, tensors, where=where, what="the moving average (train.ema_decay)")
        if not isinstance(state.get("updates"), int):
            raise CheckpointError("the checkpoint lacks the number of EMA updates", where=where)
        assign(self._shadows, tensors)
        self.updates = state["updates"]
        if "growth" not in state and self.growth == "constant":
            # a constant decay would forget what such a run has averaged so far
            self.growth = "ramp"
            logger.warning(
                "this run's average began with the growing decay of earlier versions and goes on so; "
                "train.ema_ramp=true says it"
            )

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the block the parameters hold their averages; afterwards they are as before, bit for bit.

        Both ways are writes that autograd counts, so whoever keeps copies of the weights sees them change.
        """
        kept = [part.cpu().clone() for part in self._own()]
        self._write(own_parts(self._shadows.values()))
        try:
            yield
        finally:
            self._write(kept)

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self._own(), values)

    @torch.no_grad()
    def _own(self) -> list[Tensor]:
        return own_parts(self.parameters.values())


def growth_of(config: TrainConfig) -> Growth:
    """How the decay comes to ema_decay: at once, or by one of diffusers' two ways."""
    return "ramp" if config.ema_ramp else "warmup" if config.ema_use_warmup else "constant"


def decay_of(update: int, peak: float, config: TrainConfig, growth: Growth) -> float:
    """The decay of update 1, 2, ..., at most `peak`; the average begins as a copy of the initial weights.

    The two that grow copy at the first update, then follow (1 + n) / (10 + n), or with warm-up
    1 - (1 + n / inv_gamma)^-power, over the n updates before.
    """
    past = update - config.ema_update_after_step - 1
    if growth == "constant":
        return max(peak, config.ema_min_decay) if past >= 0 else 0.0
    if past <= 0:
        return 0.0
    if growth == "warmup":
        grown: float = 1 - (1 + past / config.ema_inv_gamma) ** -config.ema_power
    else:
        grown = (1 + past) / (10 + past)
    return max(min(grown, peak), config.ema_min_decay)

"""The loss of one micro-batch, with all of its randomness derived from the positions of its samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.seeds import SampleStreams, mix_seed
from genzoo.core.types import Batch, LossOutput
from genzoo.training.parts import Parts


def micro_loss(parts: Parts, model: nn.Module, batch: Batch) -> LossOutput:
    """The task's loss on one micro-batch; calling it twice gives the same value, bit for bit.

    model: prepared or plain.   batch["position"]: (b,) int64, global positions of the samples. They seed one
    noise stream per sample, and the first of them seeds torch's global generator, from which dropout draws.
    """
    return parts.task.loss(model, *prepared_batch(parts, batch))


def prepared_batch(parts: Parts, batch: Batch) -> tuple[Batch, SampleStreams]:
    """A micro-batch encoded by the task, and what its loss draws from."""
    seed, positions = parts.config.seed, batch["position"].tolist()
    streams = SampleStreams.from_seeds(seed, "noise", positions=positions)
    seed_global(mix_seed(seed, "dropout", positions[0]), parts.device)
    moved = {key: _move(value, parts.device, parts.dtype) for key, value in batch.items()}
    with torch.no_grad():
        return parts.task.prepare_batch(moved, streams), streams


def seed_global(seed: int, device: torch.device) -> None:
    """Seed the global generators that a model on this device draws from.

    torch.manual_seed would do so for every kind of device, and where no GPU is initialised it queues a call,
    with its traceback, for the day one is: slow, and a leak when done every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _move(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    if not isinstance(value, Tensor):
        return value
    floating = dtype if value.is_floating_point() else None
    return value.to(device=device, dtype=floating, non_blocking=True)

"""What a run is made of and what it needs: the first log lines, and the report of a dry run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import NonFiniteError
from genzoo.core.model_state import stored_weights
from genzoo.core.types import Batch
from genzoo.training.micro_step import micro_loss
from genzoo.training.parts import Parts


@dataclass(frozen=True)
class Summary:
    """Sizes in bytes. activations and loss are known after a dry run; activations are of one micro-batch."""

    model: str
    parameters: int
    trainable: int
    items: int
    batch: str
    steps: int
    epochs: float
    precision: str
    device: str
    processes: int
    output: str
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    ema_bytes: int
    checkpoint_bytes: int
    free_disk_bytes: int | None
    activations_bytes: int | None = None
    loss: float | None = None

    @property
    def memory_bytes(self) -> int:
        """Of one device, all together; sharding is not taken into account."""
        fixed = self.weights_bytes + self.gradients_bytes + self.optimizer_bytes + self.ema_bytes
        return fixed + (self.activations_bytes or 0)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for --json."""
        return asdict(self) | {"memory_bytes": self.memory_bytes}

    def lines(self) -> list[str]:
        """At most ten lines for people."""
        lines = [
            f"model       {self.model}",
            f"parameters  {self.parameters:,} ({self.trainable:,} trainable)",
            f"data        {self.items:,} items",
            f"batch       {self.batch}",
            f"steps       {self.steps:,} ({self.epochs:,.1f} epochs)",
            f"precision   {self.precision}",
            f"backend     {self.device}, {self.processes} process(es)",
            f"output      {self.output} ({megabytes(self.checkpoint_bytes)} a checkpoint)",
        ]
        if self.loss is not None:
            lines.append(f"loss        {self.loss:.4f} (first batch, no update)")
            lines.append(f"memory      {megabytes(self.memory_bytes)} = {self._memory()}")
        return lines

    def _memory(self) -> str:
        parts = {
            "weights": self.weights_bytes,
            "gradients": self.gradients_bytes,
            "optimizer": self.optimizer_bytes,
            "EMA": self.ema_bytes,
            "activations (about)": self.activations_bytes or 0,
        }
        return " + ".join(f"{name} {megabytes(size)}" for name, size in parts.items() if size)

    def __str__(self) -> str:
        return "\n".join(self.lines())


def summarise(
    parts: Parts, output: Path, *, activations: int | None = None, loss: float | None = None
) -> Summary:
    """Count and add up, without running anything. output: the run's folder."""
    model, config = parts.model, parts.config
    trainable = sum(p.nbytes for p in parts.parameters.values())
    stored = sum(tensor.nbytes for tensor in stored_weights(model).values())  # of the whole
    average = trainable if parts.average else 0
    slots = round(trainable * parts.optimization.slots)
    return Summary(
        model=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in parts.parameters.values()),
        items=parts.items,
        batch=str(parts.plan),
        steps=config.steps,
        epochs=config.steps * config.batch_size / parts.items,
        precision=config.precision,
        device=str(parts.device),
        processes=parts.accelerator.num_processes,
        output=str(output),
        weights_bytes=sum(t.nbytes for t in [*model.parameters(), *model.buffers()]),
        gradients_bytes=trainable,
        optimizer_bytes=slots,
        ema_bytes=average,
        checkpoint_bytes=stored + average + slots,
        free_disk_bytes=_free_disk(output),
        activations_bytes=activations,
        loss=loss,
    )


def dry_run(parts: Parts, output: Path, micro_batches: Sequence[Batch]) -> Summary:
    """One forward and backward pass on the first micro-batch; gradients are thrown away."""
    parts.prepared.train()
    with activation_bytes(parts.model) as kept:
        loss = micro_loss(parts, parts.prepared, micro_batches[0]).loss
    parts.accelerator.backward(loss)
    parts.optimizer.zero_grad(set_to_none=True)
    value = float(loss.detach())
    if not abs(value) < float("inf"):
        raise NonFiniteError(
            f"the loss of the first batch is {value}", fix="look at the data and at the model"
        )
    return summarise(parts, output, activations=sum(kept.values()), loss=value)


@contextmanager
def activation_bytes(model: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Within the block, collect the sizes of what autograd keeps for the backward pass, less the weights."""
    weights = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def megabytes(size: int) -> str:
    """1.2 MB or 3.4 GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _free_disk(path: Path) -> int | None:
    existing = next((p for p in [path, *path.resolve().parents] if p.exists()), None)
    return shutil.disk_usage(existing).free if existing else None

"""What a run is made of and what it needs: the first log lines, and the report of a dry run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from genzoo.core.memory import free_host_memory
from genzoo.core.model_state import stored_weights
from genzoo.core.progress import clock
from genzoo.core.wording import counted
from genzoo.data.label_check import class_counts, class_line
from genzoo.training.config import TrainConfig
from genzoo.training.gpus_needed import Needed, described
from genzoo.training.parts import Parts
from genzoo.training.step_memory import StepMemory

SHOWN = 10  # unreadable files that are named


@dataclass(frozen=True)
class Summary:
    """Sizes in bytes. classes: name to count.   kept: checkpoints that lie on the disk at once.

    Known after a dry run: memory (of one process), gpus (that would do), without_weights (they were not
    there, and shapes were counted), loss and step_seconds (about;
    without previews and evaluations) where a batch was computed, looked_at (files), unreadable ("file:
    reason").
    """

    model: str
    parameters: int
    trainable: int
    items: int
    classes: dict[str, int]
    batch: str
    steps: int
    epochs: float
    precision: str
    device: str
    processes: int
    output: str
    checkpoint_bytes: int
    kept: int
    snapshot_bytes: int
    free_disk_bytes: int | None
    free_memory_bytes: int | None
    max_bad: int
    memory: StepMemory | None = None
    gpus: Sequence[Needed] = ()
    without_weights: bool = False
    loss: float | None = None
    step_seconds: float | None = None
    looked_at: int = 0
    unreadable: list[str] = field(default_factory=list)

    @property
    def disk_bytes(self) -> int:
        """Of all that a whole run keeps, and of a checkpoint more while the oldest is still there."""
        return self.checkpoint_bytes * self.kept + self.snapshot_bytes

    @property
    def too_many_unreadable(self) -> bool:
        """Whether training would end at files that cannot be read."""
        return len(self.unreadable) > self.max_bad

    @property
    def memory_bytes(self) -> int:
        """Of one device, at the moment when a step holds the most."""
        return 0 if self.memory is None else self.memory.total

    @property
    def missing_memory_bytes(self) -> int:
        """What a step takes beside what is there before it."""
        there = 0 if self.memory is None else self.memory.weights + self.memory.helpers + self.memory.averages
        return self.memory_bytes - there

    @property
    def memory_may_do(self) -> bool:
        """Whether the device has room for a step, as far as it says."""
        return self.free_memory_bytes is None or self.missing_memory_bytes <= self.free_memory_bytes

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for --json."""
        seconds = None if self.step_seconds is None else self.step_seconds * self.steps
        sums = {"memory_bytes": self.memory_bytes, "disk_bytes": self.disk_bytes, "run_seconds": seconds}
        gpus = [one._asdict() for one in self.gpus]
        return asdict(self) | sums | {"gpus": gpus}

    def lines(self) -> list[str]:
        """A few lines for people."""
        classes = f" in {class_line(self.classes)}" if self.classes else ""
        lines = [
            f"model       {self.model}",
            f"parameters  {self.parameters:,} ({self.trainable:,} trainable)",
            f"data        {counted(self.items, 'item')}{classes}",
            f"batch       {self.batch}",
            f"steps       {self.steps:,} ({self.epochs:,.1f} epochs)",
            f"precision   {self.precision}",
            f"backend     {self.device}, {self.processes} process(es)",
            f"output      {self.output} ({megabytes(self.checkpoint_bytes)} a checkpoint)",
        ]
        if self.memory is not None:
            loss = "not computed" if self.loss is None else f"{self.loss:.4f} (first batch, no update)"
            loss += ": the base has no weights, its configuration was counted" if self.without_weights else ""
            lines.append(f"loss        {loss}")
            lines += self._memory(self.memory)
            disk = _of(self.free_disk_bytes)
            lines.append(f"disk        {megabytes(self.disk_bytes)} = {self._disk()}{disk}")
            lines += [*self._time(), *self._files(), *self._warnings()]
        return lines

    def _disk(self) -> str:
        stored = f" + averages {megabytes(self.snapshot_bytes)}" if self.snapshot_bytes else ""
        return f"{counted(self.kept, 'checkpoint')} x {megabytes(self.checkpoint_bytes)}{stored}"

    def _time(self) -> list[str]:
        if self.step_seconds is None:
            return []
        whole = clock(self.step_seconds * self.steps)
        return [
            f"time        about {self.step_seconds:.3g} s a step, {whole} in all, previews and the like aside"
        ]

    def _files(self) -> list[str]:
        part = f"{self.looked_at:,} of {self.items:,}" if self.looked_at < self.items else "all"
        lines = [
            f"files       {part} looked at, {len(self.unreadable)} unreadable; max_bad is {self.max_bad}"
        ]
        return lines + [f"  {line}" for line in self.unreadable[:SHOWN]]

    def _warnings(self) -> list[str]:
        needs = {
            "memory": (self.missing_memory_bytes, self.free_memory_bytes),
            "disk": (self.disk_bytes, self.free_disk_bytes),
        }
        return [
            f"warning: the {name} may not do: {megabytes(needed)} needed, {megabytes(free)} free"
            for name, (needed, free) in needs.items()
            if free is not None and needed > free
        ]

    def _memory(self, memory: StepMemory) -> list[str]:
        parts = {
            "weights": memory.weights,
            "helpers": memory.helpers,
            "gradients": memory.gradients,
            "optimizer": memory.optimizer,
            "averages": memory.averages,
            "DDP buckets": memory.buckets,
            "activations": memory.activations,
        }
        found = f"most {memory.phase}, counted {memory.how}"
        lines = [f"memory      {megabytes(memory.total)}, {found}{_of(self.free_memory_bytes)}"]
        lines += [f"  {name:<12}{megabytes(size)}" for name, size in parts.items() if size]
        if memory.resting:
            lines.append(f"  {'at rest':<12}{megabytes(memory.resting)} in the host's memory, not in the sum")
        if self.gpus:
            lines.append(f"GPUs        {described(self.gpus)}")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


def summarise(
    parts: Parts,
    output: Path,
    *,
    memory: StepMemory | None = None,
    gpus: Sequence[Needed] = (),
    without_weights: bool = False,
) -> Summary:
    """Count and add up, without running anything. output: the run's folder.   without_weights: see
    `Summary`.
    """
    model, config = parts.model, parts.config
    trainable = sum(p.nbytes for p in parts.parameters.values())
    stored = sum(tensor.nbytes for tensor in stored_weights(model).values())  # of the whole
    average = trainable if parts.average else 0
    slots = round(trainable * parts.optimization.slots) + trainable * len(config.ema_profiles)
    return Summary(
        model=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in parts.parameters.values()),
        items=parts.items,
        classes=class_counts(parts.dataset),
        batch=str(parts.plan),
        steps=config.steps,
        epochs=config.steps * config.batch_size / parts.items,
        precision=config.precision,
        device=str(parts.device),
        processes=parts.accelerator.num_processes,
        output=str(output),
        checkpoint_bytes=stored + average + slots,
        kept=checkpoints_kept(config),
        snapshot_bytes=trainable * len(config.ema_profiles) * (config.steps // config.snapshot_every),
        free_disk_bytes=_free_disk(output),
        free_memory_bytes=_free_memory(parts.device),
        max_bad=config.max_bad,
        memory=memory,
        gpus=gpus,
        without_weights=without_weights,
    )


def checkpoints_kept(config: TrainConfig) -> int:
    """How many checkpoints lie on the disk at once, at most: a new one is written before an old one goes."""
    written = -(-config.steps // config.checkpoint_every)
    for_good = config.steps // config.keep_every if config.keep_every else 0
    return min(written, config.keep_last + 1 + for_good)


def _of(free: int | None) -> str:
    return "" if free is None else f"; {megabytes(free)} free"


def megabytes(size: int) -> str:
    """1.2 MB or 3.4 GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _free_memory(device: torch.device) -> int | None:
    """What the device has left for this process; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_host_memory()


def _free_disk(path: Path) -> int | None:
    existing = next((p for p in [path, *path.resolve().parents] if p.exists()), None)
    return shutil.disk_usage(existing).free if existing else None

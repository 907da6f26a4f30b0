"""The held-out loss during training: raw and averaged weights, on one table, in the log and on the line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genzoo.api.recipes.sections import HeldOut
from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import NeedsCodec
from genzoo.core.errors import DataError
from genzoo.core.node import Node, node_of
from genzoo.core.registry import DATASETS
from genzoo.core.run_folder import read_metrics
from genzoo.core.types import Dataset, LatentCodec, Task
from genzoo.data.held_out import identities, require_disjoint, split_by_share
from genzoo.training.held_out import HeldOutLoss
from genzoo.training.hook import Hook, StepRecord, TrainingView

GROUP = "held_out"


@dataclass(frozen=True)
class Division:
    """training: indices of the data set to train on, None for all.   dataset, indices: what is held out."""

    training: list[int] | None
    dataset: Dataset
    indices: list[int]


def divide(chosen: HeldOut, data: Node, dataset: Dataset, codec: LatentCodec | None) -> Division:
    """What is trained on and what is held out. Raises DataError for an empty or an overlapping split."""
    names = identities(dataset)
    if chosen.share is not None:
        training, indices = split_by_share(names, chosen.share)
        return Division(training, dataset, spread(indices, chosen.num))
    changed = node_of({**data.section(), **(chosen.data or {})})
    other: Dataset = DATASETS.get(changed.name)(**changed.arguments)
    if len(other) == 0:
        raise DataError("the held-out data are empty", where="held_out.data", fix="name a split or folder")
    require_disjoint(names, identities(other))
    latents = able(other, NeedsCodec)
    if latents is not None:
        latents.bind_codec(codec)
    return Division(None, other, spread(list(range(len(other))), chosen.num))


def spread(indices: list[int], num: int) -> list[int]:
    """At most `num` of the indices, evenly spread over them: classes often lie side by side."""
    count = min(num, len(indices))
    return [indices[position * len(indices) // count] for position in range(count)]


class HeldOutHook(Hook):
    """Measures every so many steps and at the last one; the same rows for raw and averaged weights."""

    def __init__(self, chosen: HeldOut, division: Division, task: Task, *, seed: int) -> None:
        self.every = chosen.every
        self.loss = HeldOutLoss(
            task,
            division.dataset,
            division.indices,
            strata=chosen.strata,
            seed=seed,
            block_size=chosen.block_size,
        )

    def on_start(self, trainer: TrainingView) -> None:
        if self.is_behind(trainer):
            self._measure(trainer)

    def is_behind(self, trainer: TrainingView) -> bool:
        if not trainer.step or not self._is_due(trainer, trainer.step):
            return False
        return not trainer.world.on_first(lambda: _is_measured(trainer.folder.metrics, trainer.step))

    def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
        if self._is_due(trainer, record.step):
            self._measure(trainer)

    def _is_due(self, trainer: TrainingView, step: int) -> bool:
        return step % self.every == 0 or step == trainer.config.steps

    def _measure(self, trainer: TrainingView) -> None:
        values = self.measured(trainer)
        for recorder in trainer.recorders:
            recorder.on_values(trainer, GROUP, values)

    def measured(self, trainer: TrainingView) -> dict[str, float]:
        """Values by name; those of the raw weights begin with raw_ where there is an average."""
        dtype = next(iter(trainer.parameters.values())).dtype
        with trainer.raw_model() as model:
            raw = self.loss.measure(model, trainer.device, dtype, trainer.world).values()
        if trainer.average is None:
            return raw
        with trainer.averaged_model() as model:
            averaged = self.loss.measure(model, trainer.device, dtype, trainer.world).values()
        return averaged | {f"raw_{name}": value for name, value in raw.items()}


def _is_measured(metrics: Path, step: int) -> bool:
    lines = read_metrics(metrics) if metrics.exists() else []
    return any(line["step"] == step and any(key.startswith(f"{GROUP}/") for key in line) for line in lines)

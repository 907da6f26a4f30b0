"""How good samples of digits are, and how long the steps took that trained their model."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genzoo.evaluation.nearest_neighbour import judge, other_images, real_images
from genzoo.training.hook import Hook, StepRecord, TrainingView

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.api.run import Run


class TrainingClock(Hook):
    """Seconds of a run's steps and checkpoints, over all calls that trained it, without start and judging.

    Every checkpoint keeps them beside the run (`at`), so that a call that goes on goes on counting.
    """

    def __init__(self, kept: Path) -> None:
        self.kept = kept
        self._known: dict[str, list[float]] = (
            json.loads(kept.read_text()) if kept.is_file() else {"0": [0, 0]}
        )

    def at(self, step: int) -> dict[str, float]:
        """Seconds until this checkpoint: of this process and its threads, and of the clock, which other work
        on the machine makes longer."""
        cpu, wall = self._known[str(step)]
        return {"cpu_seconds": cpu, "wall_seconds": wall}

    def on_start(self, trainer: TrainingView) -> None:
        self._cpu, self._wall = self._known[str(trainer.step)]
        self._since = time.process_time(), time.perf_counter()

    def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
        self._count()

    def on_checkpoint(self, trainer: TrainingView, path: Path) -> None:
        self._count()  # a checkpoint is written before hooks are told of its step
        self._known[str(trainer.step)] = [self._cpu, self._wall]
        self.kept.write_text(json.dumps(self._known) + "\n")

    def _count(self) -> None:
        now = time.process_time(), time.perf_counter()
        self._cpu += now[0] - self._since[0]
        self._wall += now[1] - self._since[1]
        self._since = now


def judged(run: Run, num: int, **sampling: Any) -> dict[str, float]:
    """`num` samples over all classes in turn: accuracy, diversity and energy distance to the digits of
    training, and the same by the held-out ones.

    sampling: as of `Run.sample`; weights are the averaged ones.
    """
    labels = torch.arange(num) % 10
    samples = run.sample(class_labels=labels.tolist(), **sampling).pixels.flatten(1).float()
    found: dict[str, float] = {}
    for prefix, dataset in (("", run.dataset()), ("held_out_", other_images(run, {"split": "test"}))):
        real, real_labels = real_images(dataset)
        numbers = judge(samples, labels, real, real_labels, k=3)
        numbers["energy"] = class_energy(samples, labels, real, real_labels)
        found |= {prefix + name: value for name, value in numbers.items()}
    return found


def class_energy(samples: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor) -> float:
    """Energy distance between samples and real images of one class, averaged over the classes.

    2 E|x - y| - E|x - x'| - E|y - y'| of pairs of different rows (Székely and Rizzo 2013), whose mean is 0
    for samples of the same distribution and never below.   samples (m, d), real (n, d), labels (m,), (n,).
    """
    distances = []
    for label in real_labels.unique():
        ours, theirs = samples[labels == label].double(), real[real_labels == label].double()
        across = torch.cdist(ours, theirs).mean()
        distances.append(2 * across - torch.pdist(ours).mean() - torch.pdist(theirs).mean())
    return torch.stack(distances).mean().item()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}

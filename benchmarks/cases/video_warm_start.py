"""What a warm start saves: DiM for clips from nothing, and from an image DiM's blocks, on moving digits.

Both runs see the same clips and noise at one constant learning rate: no step is a last one. Judged is the
loss of the averaged weights on fixed clips, noise and times. The image model's own cost stands beside.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.registry import Options, case
from genzoo.api.run import train
from genzoo.api.training.train import build_trainer
from genzoo.core.recipe import load_recipe
from genzoo.core.seeds import SampleStreams
from genzoo.training.hook import Hook, StepRecord

if TYPE_CHECKING:
    from genzoo.core.types import Batch
    from genzoo.training.trainer import Trainer

IMAGES, CLIPS = "quickstart/dim_placed_digits", "quickstart/dim_video_moving_digits"
CONSTANT = ["optim.schedule=constant", "optim.lr=1e-3", "train.ema_decay=0.98", "preview=null", "report=null"]
JUDGED = 160  # clips


class FixedLoss(Hook):
    """Every so many steps, the averaged weights' loss on fixed clips; `curve` is [(steps, loss), ...]."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.curve: list[tuple[int, float]] = []
        self._batch: Batch | None = None

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if record.step % self.every:
            return
        self._batch = self._batch or fixed_batch(trainer)
        with torch.no_grad(), trainer.averaged_model() as model:
            loss = trainer.task.loss(model, self._batch).loss.item()
        self.curve.append((record.step, loss))


def fixed_batch(trainer: Trainer) -> Batch:
    """Clips spread over the data set, with noise of their own and times spread from 0 to 1."""
    dataset: Any = trainer.dataset
    task: Any = trainer.task
    rows = torch.linspace(0, len(dataset) - 1, JUDGED).long().tolist()
    streams = SampleStreams.from_seeds(7, "judged", positions=range(JUDGED))
    batch = task.prepare_batch(dataset.fetch_many(rows, [None] * JUDGED), streams)
    # in an order of their own: clips are sorted by nothing, but neighbours share a digit's number
    order = torch.randperm(JUDGED, generator=torch.Generator().manual_seed(7))
    return {**batch, "times": ((torch.arange(JUDGED) + 0.5) / JUDGED)[order]}


def curve_of(output: Path, steps: int, every: int, *, source: Path | None, settings: list[str]) -> FixedLoss:
    """Train the clips' recipe and watch its loss."""
    begin = [] if source is None else [f"init_from={{path: {source}}}"]
    overrides = [*CONSTANT, f"train.steps={steps}", f"train.checkpoint_every={steps}", *settings, *begin]
    hook = FixedLoss(every)
    trainer, _ = build_trainer(load_recipe(CLIPS, overrides), output=output, hooks=[hook])
    trainer.fit("never")
    return hook


def steps_to(loss: float, curve: list[tuple[int, float]]) -> float:
    """Steps after which the curve first is as low, between its points; infinite when it never is."""
    before = (0, float("inf"))
    for step, value in curve:
        if value <= loss:
            share = 1.0 if before[1] == float("inf") else (before[1] - loss) / (before[1] - value)
            return before[0] + share * (step - before[0])
        before = (step, value)
    return float("inf")


@case("video_warm_start")
def video_warm_start(options: Options) -> list[dict[str, Any]]:
    """Steps to a given loss: DiM for moving digits, from scratch and from an image DiM (init_from)."""
    given = dict(options.settings)
    steps, every = int(given.pop("steps", 800)), int(given.pop("every", 25))
    source, image_steps = given.pop("source", None), int(given.pop("image_steps", 1200))
    settings = [f"{key}={value}" for key, value in given.items()]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        if source is None:
            short = [f"train.steps={image_steps}", "preview=null", "report=null"]
            train(load_recipe(IMAGES, short), output=Path(folder) / "images")
        seconds = time.perf_counter() - start
        images = Path(source) if source else Path(folder) / "images"
        scratch = curve_of(Path(folder) / "scratch", steps, every, source=None, settings=settings)
        warm = curve_of(Path(folder) / "warm", steps, every, source=images, settings=settings)
    found: list[dict[str, Any]] = []
    for part in (0.25, 0.5, 1.0):
        loss = min(value for step, value in scratch.curve if step <= part * steps)
        own, other = steps_to(loss, scratch.curve), steps_to(loss, warm.curve)
        found.append({
            "name": f"loss of {own:.0f} steps from scratch", "loss": loss, "steps_scratch": own,
            "steps_warm": other, "ratio": other / own, "target": 0.5,
        })  # fmt: skip
    curves = {"name": "curves", "scratch": scratch.curve, "warm": warm.curve, "image_seconds": seconds}
    return [*found, curves]

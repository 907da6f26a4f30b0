"""A CAR beside its frozen base, trained and sampled by one process or shared out over several."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from families.car.tiny import NUM_CLASSES, saved, streams, tiny_car, tiny_task, tiny_var

from genzoo.families.car.weights.loading import load_var_weights
from genzoo.training.config import TrainConfig
from genzoo.training.hook import Hook, StepRecord, TrainingView
from genzoo.training.trainer import Trainer


class Noise:
    """Pictures of noise with a class each."""

    sample_shape = (3, 8, 8)
    num_classes = NUM_CLASSES
    class_names = None
    fingerprint = "noise"

    def __len__(self) -> int:
        return 12

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        pixels = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(index)) * 2 - 1
        return {"pixels": pixels, "class_labels": torch.tensor(index % NUM_CLASSES)}


class Draws(Hook):
    """Samples with the averaged weights at every step: by other ways through the model than its forward."""

    def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
        with trainer.averaged_model() as model, torch.no_grad():
            conditions = trainer.task.conditions(2, class_labels=[1, 3])
            pixels = trainer.task.sample(model, conditions, streams(0, 1))
        trainer.world.on_first(lambda: torch.save(pixels, trainer.folder.path / f"drawn_{record.step}.pt"))


def train_car(output: str, **config: Any) -> None:
    """Three steps in float64, but for the logits, which are float32."""
    folder = Path(f"{output}_parts_{os.getpid()}")
    folder.mkdir()
    path = saved(tiny_var(), folder / "var.safetensors")
    model = tiny_car(var_weights=path)
    model.base.load_state_dict(load_var_weights(path, model.base))
    settings = TrainConfig(
        steps=3, batch_size=6, checkpoint_every=3, log_every=1, tensorboard=False, ema_decay=0.5,
        precision="fp64", **config,
    )  # fmt: skip
    task = tiny_task(folder, model, control="canny")
    optim = {"name": "sgd", "lr": 0.1, "weight_decay": 0.1}  # Adam would magnify the rounding of logits
    Trainer(task, Noise(), settings, optim=optim, output=output, hooks=(Draws(),)).fit()

"""A toy task and data set that implement the protocols, with dropout, noise and augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import DataError
from genzoo.core.seeds import SampleStreams, mix_seed
from genzoo.core.types import Batch, LossOutput
from genzoo.training.config import TrainConfig
from genzoo.training.trainer import Trainer

WIDTH = 6


class ToyDataset:
    """Vectors with a little noise as augmentation. bad: indices that cannot be read."""

    sample_shape = (WIDTH,)
    num_classes = None
    class_names = None
    fingerprint = "toy"

    def __init__(self, items: int = 20, *, augment: bool = True, bad: tuple[int, ...] = ()) -> None:
        self.values = torch.randn(items, WIDTH, generator=torch.Generator().manual_seed(7))
        self.augment, self.bad = augment, bad

    def __len__(self) -> int:
        return len(self.values)

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        if index in self.bad:
            raise DataError("cannot be read", where=f"item{index}.png")
        noise = torch.randn(WIDTH, generator=generator) if self.augment else torch.zeros(WIDTH)
        return {"x": self.values[index] + 0.1 * noise}


class ToyModel(nn.Module):
    """An MLP with dropout, a buffer, a parameter exempt from decay, and on demand a frozen first layer."""

    def __init__(self, hidden: int = 9, *, dropout: float = 0.2, frozen_base: bool = False) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, hidden) if frozen_base else None
        self.first = nn.Linear(hidden if frozen_base else WIDTH, hidden)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(hidden, WIDTH)
        self.scale = nn.Parameter(torch.ones(WIDTH))
        self.undecayed = ("scale",)
        self.register_buffer("shift", torch.full((WIDTH,), 0.25))
        if self.base is not None:
            self.base.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, w) -> (b, w)."""
        x = x if self.base is None else torch.tanh(self.base(x))
        return self.last(self.dropout(torch.tanh(self.first(x)))) * self.scale + self.shift


class ToyTask:
    """Predict the noise that was added to a vector."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.seen: list[list[int]] = []

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        self.model.to(device=device, dtype=dtype)

    def prepare_batch(self, batch: Batch, generator: SampleStreams) -> Batch:
        return dict(batch) | {"noise": generator.randn_like(batch["x"])}

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams) -> LossOutput:
        self.seen.append(batch["position"].tolist())
        error = (model(batch["x"] + batch["noise"]) - batch["noise"]).square().mean()
        return LossOutput(error, {"rmse": error.detach().sqrt()})

    def conditions(self, num: int, **options: Any) -> Batch:
        return {"num": num}

    def sample(self, model: nn.Module, conditions: Batch, generator: SampleStreams, **options: Any) -> Tensor:
        return model(generator.randn_like(torch.zeros(conditions["num"], WIDTH)))


def toy_task(*, seed: int = 3, **options: Any) -> ToyTask:
    """A task whose model starts from weights that depend on the seed only."""
    torch.manual_seed(mix_seed(seed, "init"))
    return ToyTask(ToyModel(**options))


def toy_trainer(
    output: Path,
    *,
    task: ToyTask | None = None,
    dataset: ToyDataset | None = None,
    optim: dict[str, Any] | None = None,
    hooks: tuple[Any, ...] = (),
    **config: Any,
) -> Trainer:
    """A trainer of 12 steps with everything random switched on."""
    defaults = {"steps": 12, "batch_size": 6, "checkpoint_every": 4, "log_every": 1, "ema_decay": 0.9}
    settings = TrainConfig(**(defaults | {"tensorboard": False, "clip_grad_norm": 1.0} | config))
    optim = optim or {
        "name": "adamw",
        "lr": 1e-2,
        "weight_decay": 0.1,
        "schedule": "cosine",
        "warmup_steps": 2,
    }
    return Trainer(
        task or toy_task(), dataset or ToyDataset(), settings, optim=optim, output=output, hooks=hooks
    )

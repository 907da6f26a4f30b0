"""Frozen weights that lie in 16 bits: the same steps, the same checkpoints, less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from car_case import Draws, Noise
from families.car.tiny import saved, tiny_car, tiny_task, tiny_var
from torch import Tensor, nn
from toys import toy_task, toy_trainer

from genzoo.core.errors import RecipeError
from genzoo.core.processes import World
from genzoo.core.run_folder import read_metrics
from genzoo.core.stored_tensors import open_checkpoint
from genzoo.families.car.control.model import CAR
from genzoo.training.config import TrainConfig
from genzoo.training.frozen_storage import FrozenStorage
from genzoo.training.hook import Hook
from genzoo.training.trainer import Trainer

BRANCHES: dict[str, dict[str, Any]] = {
    "paper": {},
    "zero_conv": {"injection": "zero_conv_add"},
    "cross_norm": {"injection": "cross_norm_add"},
    "conv_branch": {"control_network": "conv"},
    "vqvae_encoder": {"fusion": "vqvae_encoder"},
    "shared_adaln": {"shared_adaln": True},
    "checkpointed": {"gradient_checkpointing": True, "control_checkpointing": True},
}


def car_trainer(
    folder: Path, *, hooks: tuple[Hook, ...] = (), branch: str = "paper", **config: Any
) -> Trainer:
    folder.mkdir()
    options = BRANCHES[branch]
    base = tiny_var(shared_adaln=options.get("shared_adaln", False))
    model = tiny_car(var_weights=saved(base, folder / "var.safetensors"), **options)
    settings = TrainConfig(
        **({"steps": 3, "batch_size": 4, "checkpoint_every": 3, "log_every": 1, "tensorboard": False}
           | {"ema_decay": 0.5, "precision": "bf16"} | config)
    )  # fmt: skip
    task = tiny_task(folder, model, control="canny")
    optim = {"name": "adamw", "lr": 1e-2, "weight_decay": 0.1}
    return Trainer(task, Noise(), settings, optim=optim, output=folder / "run", hooks=hooks)


def left_behind(trainer: Trainer) -> tuple[list[float], dict[str, Tensor], str | None]:
    """Losses, all tensors of the newest checkpoint, and the hash of what it stands on."""
    checkpoint = trainer.saved
    assert checkpoint is not None
    stored = open_checkpoint(checkpoint, World.single(), torch.device("cpu"))
    tensors = {
        f"{part}/{name}": tensor
        for part in ("weights", "ema", "optimizer")
        for name, tensor in dict(getattr(stored, part)).items()
    }
    losses = [row["loss"] for row in read_metrics(trainer.folder.metrics)]
    return losses, tensors, stored.state["frozen"]


def same(one: Trainer, other: Trainer) -> bool:
    (losses, tensors, frozen), (others, theirs, base) = left_behind(one), left_behind(other)
    assert len(losses) == 3
    assert tensors.keys() == theirs.keys()
    assert frozen == base
    return losses == others and all(tensors[name].equal(theirs[name]) for name in tensors)


@pytest.mark.parametrize("branch", sorted(BRANCHES))
def test_losses_and_checkpoints_are_those_of_a_base_in_float32(tmp_path: Path, branch: str) -> None:
    whole = car_trainer(tmp_path / "whole", branch=branch)
    rounded = car_trainer(tmp_path / "rounded", branch=branch, frozen_in_16_bits=True)
    for trainer in (whole, rounded):
        trainer.fit()
    assert isinstance(rounded.model, CAR)
    assert rounded.model.base.blocks[0].ffn.fc1.weight.dtype == torch.bfloat16
    assert same(whole, rounded)


def test_a_run_goes_on_with_either(tmp_path: Path) -> None:
    whole = car_trainer(tmp_path / "whole")
    whole.fit()
    first = car_trainer(tmp_path / "a", frozen_in_16_bits=True)
    first.fit(until=1)
    second = car_trainer(tmp_path / "b", frozen_in_16_bits=False)
    second.fit(first.folder.path, until=2)
    third = car_trainer(tmp_path / "c", frozen_in_16_bits=True)
    third.fit(second.folder.path)
    assert all(left_behind(third)[1][name].equal(t) for name, t in left_behind(whole)[1].items())


def test_previews_are_drawn_with_the_rounded_weights(tmp_path: Path) -> None:
    trainer = car_trainer(tmp_path / "rounded", hooks=(Draws(),), frozen_in_16_bits=True)
    trainer.fit()
    drawn = torch.load(tmp_path / "rounded" / "run" / "drawn_3.pt")
    assert drawn.isfinite().all()
    assert trainer.parts.frozen_storage is not None
    inside = trainer.model.base.blocks[0].ffn.fc1.weight
    before = inside.clone()
    with trainer.raw_model():
        assert inside.dtype == torch.float32
        assert inside.equal(before.float())
    assert inside.dtype == torch.bfloat16


def test_what_steps_read_in_float32_stays_whole(tmp_path: Path) -> None:
    base = car_trainer(tmp_path / "rounded", frozen_in_16_bits=True).model.base
    halved = {name for name, p in base.named_parameters() if p.dtype == torch.bfloat16}
    whole = {name for name, p in base.named_parameters()} - halved
    assert {"word_embed.weight", "blocks.3.attn.mat_qkv.weight", "blocks.0.ada_lin.1.bias"} <= halved
    assert {"head.weight", "head_nm.ada_lin.1.weight", "pos_1LC", "class_emb.weight"} <= whole


def test_what_is_trained_or_shared_with_another_kind_of_layer_stays_whole() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.out.weight = self.table.weight
            self.inside, self.norm, self.last = nn.Conv1d(3, 4, 1), nn.LayerNorm(4), nn.Linear(4, 2)

    model = Tied().requires_grad_(False)
    model.last.requires_grad_(True)
    storage = FrozenStorage(model, "fp16")
    halved = {name for name, p in model.named_parameters() if p.dtype == torch.float16}
    assert halved == {"inside.weight", "inside.bias"}
    with storage.widened():
        assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_dry_run_counts_half_of_the_frozen_weights(tmp_path: Path) -> None:
    weights = {}
    for rounded in (False, True):
        options = {"precision": "bf16", "frozen_in_16_bits": rounded}
        task = toy_task(hidden=40, frozen_base=True)
        memory = toy_trainer(tmp_path / str(rounded), task=task, **options).dry_run().memory
        assert memory is not None
        weights[rounded] = memory.weights
    assert weights[False] - weights[True] == 2 * (6 * 40 + 40)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"precision": "fp32"}, "under fp32 steps read all bits; use precision: bf16"),
        ({"precision": "fp64"}, "under fp64"),
        ({"precision": "bf16", "sharding": "full"}, "use sharding: none"),
    ],
    ids=["fp32", "fp64", "sharded"],
)
def test_what_it_cannot_go_with_is_said(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        TrainConfig(steps=1, batch_size=1, frozen_in_16_bits=True, **settings)


def test_a_model_that_is_trained_whole_has_nothing_to_keep_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no frozen linear layer"):
        toy_trainer(tmp_path, task=toy_task(), precision="bf16", frozen_in_16_bits=True)

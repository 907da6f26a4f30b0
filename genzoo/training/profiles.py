"""The averages that can be combined after training: tracked at every step, stored at intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from genzoo.core.errors import CheckpointError
from genzoo.core.model_state import assign, require_same
from genzoo.core.processes import World
from genzoo.core.sharded import own_parts
from genzoo.core.stored_tensors import chosen
from genzoo.core.tensor_stream import write_tensors
from genzoo.training.power_average import decay_at, gamma_of

FOLDER = "profiles"
SLOT = "profile_"  # how checkpoints name them, beside the optimizer's slots


class PowerAverages:
    """One average of the parameters for each relative length; they begin with the first step's result."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], lengths: Sequence[float]) -> None:
        self.parameters = dict(parameters)
        self.gammas = {f"{length:g}": gamma_of(length) for length in lengths}
        self._averages = {
            length: {name: p.detach().clone() for name, p in parameters.items()} for length in self.gammas
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the parameters after optimizer step 1, 2, ..."""
        present = own_parts(self.parameters.values())
        for length, gamma in self.gammas.items():
            averages = own_parts(self._averages[length].values())
            # float32, never less: a combination magnifies the rounding of what it combines
            torch._foreach_lerp_(averages, present, 1 - decay_at(step, gamma))

    def tensors(self) -> dict[str, Tensor]:
        """The averages as "parameter/profile_0.05"; those of a sharded model stay sharded."""
        return {
            f"{name}/{SLOT}{length}": tensor
            for length, averages in self._averages.items()
            for name, tensor in averages.items()
        }

    def restore(self, tensors: Mapping[str, Tensor], *, where: str) -> None:
        """Continue from saved averages. Raises CheckpointError when they are not of these lengths."""
        if not tensors:
            raise CheckpointError(
                "the checkpoint holds no averages to combine (train.ema_profiles)",
                where=where,
                why="they run from the first step, and cannot be begun later",
                fix="take ema_profiles out of the recipe, or start a new run with another --output",
            )
        mine = {
            f"{name}/{SLOT}{length}": tensor
            for length, averages in self._averages.items()
            for name, tensor in averages.items()
        }
        require_same(mine, tensors, where=where, what="the averages to combine (train.ema_profiles)")
        assign(mine, tensors)


def split_slots(tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """A checkpoint's optimizer part in two: the optimizer's own, and the averages to combine."""
    profiles = [key for key in tensors if key.rpartition("/")[2].startswith(SLOT)]
    own = [key for key in tensors if key not in set(profiles)]
    return chosen(tensors, own), chosen(tensors, profiles)


def snapshot_file(run: Path, step: int) -> Path:
    """Where the averages of a step are stored."""
    return run / FOLDER / f"step_{step:08d}.safetensors"


def write_snapshot(run: Path, step: int, tensors: Mapping[str, Tensor], world: World | None = None) -> Path:
    """Store the averages of a step; the same step again writes the same file.

    world: the processes that hold parts of the averages and make this call together; alone without.
    """
    return write_tensors(snapshot_file(run, step), tensors, {"format": "pt"}, world or World.single())

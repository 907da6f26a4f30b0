"""A model of which each process holds a part (FSDP2), block by block.

Each block's weights are gathered for its forward and its backward pass, and its gradients are averaged into
the parts. Weights and their sums stay float32: half precision is autocast's, as without sharding.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from genzoo.core.contracts import able
from genzoo.core.contracts.execution import NamesBlocks
from genzoo.core.errors import RecipeError
from genzoo.core.processes import World, processes_of_a_machine
from genzoo.training.config import TrainConfig

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

logger = logging.getLogger(__name__)


def is_sharding(config: TrainConfig, world: World) -> bool:
    """Whether the model is to be shared out. Raises RecipeError for groups that cannot be formed."""
    if config.sharding == "none":
        return False
    if world.size == 1:
        logger.warning("train.sharding: %s has no effect with one process", config.sharding)
        return False
    if config.sharding == "hybrid":
        group_size(config, world)
    return True


def group_size(config: TrainConfig, world: World) -> int:
    """How many processes hold one whole model together."""
    if config.sharding == "full":
        return world.size
    size = config.shard_size or processes_of_a_machine()
    if not 1 < size < world.size or world.size % size:
        valid = [str(one) for one in range(2, world.size) if world.size % one == 0]
        raise RecipeError(
            f"train.shard_size: {size} processes cannot hold one model each time among {world.size}",
            why="hybrid sharding has several groups of two or more",
            fix=f"use {' or '.join(valid)}" if valid else "use sharding: full",
        )
    return size


def shard(model: nn.Module, config: TrainConfig, world: World, device: torch.device) -> nn.Module:
    """Share out a model's parameters, in place. Every process has the first one's values afterwards.

    What a caller noted on a parameter, such as that it does not decay, goes with it.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    blocks = blocks_of(model)
    noted = {name: dict(vars(parameter)) for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            world.broadcast(tensor)
    mesh = _mesh(config, world, device)
    reduced = None if config.precision == "fp64" else torch.float32
    policy = MixedPrecisionPolicy(param_dtype=None, reduce_dtype=reduced)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for name, parameter in model.named_parameters():
        vars(parameter).update(noted[name])
    return model


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The parts that are gathered one after another. Raises RecipeError for a model that names none."""
    naming = able(model, NamesBlocks)
    if naming is None:
        raise RecipeError(
            f"train.sharding: {type(model).__name__} names no blocks to share out",
            fix="use train.sharding: none",
        )
    return list(naming.sharded_blocks())


def exchange_gradients(model: nn.Module, exchange: bool) -> None:
    """Whether a sharded model's next backward pass averages gradients over the processes, or adds them up."""
    from torch.distributed.fsdp import FSDPModule

    assert isinstance(model, FSDPModule)
    model.set_requires_gradient_sync(exchange)


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Within the block every process holds all of a sharded model's weights.

    Then any method may be called, and as often as a process likes: nobody waits for the others. Afterwards
    the parts are the truth again. All processes enter and leave it together.
    """
    from torch.distributed.fsdp import FSDPModule

    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in parts:
        module.reshard()  # what is still gathered from a step before may be out of date
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    for parameter in model.parameters():
        # gathering writes past autograd's counters, and copies in half precision go by them
        torch.autograd.graph.increment_version(parameter)
    try:
        yield
    finally:
        for module in parts:
            module.reshard()
            module.set_reshard_after_forward(module is not model, recurse=False)


def _mesh(config: TrainConfig, world: World, device: torch.device) -> DeviceMesh:
    from torch.distributed.device_mesh import init_device_mesh

    size = group_size(config, world)
    if config.sharding == "full":
        return init_device_mesh(device.type, (size,))
    return init_device_mesh(device.type, (world.size // size, size), mesh_dim_names=("replicate", "shard"))

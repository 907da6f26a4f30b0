"""What a trainer is made of, put together once: checkpoints and summaries are made from the same parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from genzoo.core.model_state import frozen_digest, trainable_parameters
from genzoo.core.types import Dataset, Task
from genzoo.nn.compiled import compile_blocks
from genzoo.training import devices
from genzoo.training.batch_plan import BatchPlan, plan_batch
from genzoo.training.config import TrainConfig
from genzoo.training.ema import ParameterAverage
from genzoo.training.frozen_storage import FrozenStorage
from genzoo.training.optim import Optimization, build_optimizer
from genzoo.training.profiles import PowerAverages
from genzoo.training.sharding import is_sharding, shard


@dataclass(frozen=True)
class Parts:
    """The pieces of a training on their devices; their tensors change, the pieces do not.

    facts: about frozen helpers, such as the codec, kept in checkpoints and compared by a resumed run.
    items: how many of the data set are trained on.   dtype: of data and helpers, None leaves them alone.
    model: the task's, plain.   prepared: the same as the loss runs it.   parameters: the trained ones of
    `model`.   frozen: the hash of its other ones.   frozen_storage: these, where they lie in 16 bits.
    optim: the recipe's section.   optimizer: `optimization.optimizer` with the loss scale around it.
    average, profiles: of the parameters, where they are kept.   sharded: whether this process holds parts of
    them only.
    """

    task: Task
    dataset: Dataset
    items: int
    config: TrainConfig
    plan: BatchPlan
    accelerator: Accelerator
    dtype: torch.dtype | None
    model: nn.Module
    prepared: nn.Module
    parameters: dict[str, nn.Parameter]
    frozen: str | None
    frozen_storage: FrozenStorage | None
    optim: Mapping[str, Any]
    optimization: Optimization
    optimizer: Any
    average: ParameterAverage | None
    profiles: PowerAverages | None
    sharded: bool
    facts: Mapping[str, str]

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        device: torch.device = self.accelerator.device
        return device


def build_parts(
    task: Task,
    dataset: Dataset,
    config: TrainConfig,
    optim: Mapping[str, Any],
    only: Sequence[int] | None = None,
    facts: Mapping[str, str] | None = None,
) -> Parts:
    """Move the task to this process's device and surround its model with what training needs.

    only: the items that are trained on, all when left out.   facts: see `Parts`.
    """
    accelerator = devices.build_accelerator(config)
    plan = plan_batch(config.batch_size, config.micro_batch_size, accelerator.num_processes)
    dtype = torch.float64 if config.precision == "fp64" else None
    task.to(accelerator.device, dtype)
    model = task.model.to(device=accelerator.device, dtype=dtype)
    frozen = frozen_digest(model)  # of whole weights, before anything shards them
    world = devices.world_of(accelerator)
    sharded = is_sharding(config, world)
    prepared = devices.prepare_model(accelerator, model, averages=not sharded)
    if sharded:
        prepared = shard(prepared, config, world, accelerator.device)
    model = devices.plain_model(prepared)
    storage = FrozenStorage(model, config.precision) if config.frozen_in_16_bits else None
    if config.compile:
        compile_blocks(model)
    parameters = trainable_parameters(model)
    optimization = build_optimizer(parameters, optim)  # of the parts, where the model is shared out
    # it has no state yet that could lie elsewhere
    optimizer = accelerator.prepare_optimizer(optimization.optimizer, device_placement=False)
    return Parts(
        task=task,
        dataset=dataset,
        items=len(dataset) if only is None else len(only),
        config=config,
        plan=plan,
        accelerator=accelerator,
        dtype=dtype,
        model=model,
        prepared=prepared,
        parameters=parameters,
        frozen=frozen,
        frozen_storage=storage,
        optim=optim,
        optimization=optimization,
        optimizer=optimizer,
        average=ParameterAverage(parameters, config) if config.ema_decay is not None else None,
        profiles=PowerAverages(parameters, config.ema_profiles) if config.ema_profiles else None,
        sharded=sharded,
        facts=facts or {},
    )

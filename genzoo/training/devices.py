"""Accelerate's part: devices, processes, precision; and the few things processes must agree on."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import inspect
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from types import MethodType
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import (
    InitProcessGroupKwargs,
    convert_outputs_to_fp32,
    get_mixed_precision_context_manager,
)
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from genzoo.core.errors import UsageError
from genzoo.core.memory import freed_memory_kept
from genzoo.core.process_settings import allow_tf32, process_settings
from genzoo.core.processes import LAUNCHED, World, default_device, require_launched
from genzoo.core.sharded import whole
from genzoo.core.types import LossOutput
from genzoo.training.config import TrainConfig
from genzoo.training.launcher import PRECISIONS, refuse_other_ways
from genzoo.training.signals import STOP_SIGNALS

logger = logging.getLogger(__name__)


def build_accelerator(config: TrainConfig) -> Accelerator:
    """An Accelerator for this process, from torchrun's or `accelerate launch`'s environment, or alone."""
    refuse_other_ways(config)
    require_launched(*LAUNCHED)
    # Accelerate keeps the first run's precision for the whole process, and has no public way to forget it
    AcceleratorState._reset_state()
    timeout = datetime.timedelta(seconds=config.collective_timeout)
    # told explicitly: without a GPU Accelerate overlooks torchrun's group unless it is asked for the CPU
    cpu = default_device() == "cpu"
    state = PartialState(cpu=cpu, timeout=timeout)
    _require_launched_group(state)
    if state.num_processes > 1:
        # left to the interpreter's end, the group's threads may outlive what they use and abort the process
        atexit.register(_leave_group)
    if config.precision == "fp16" and state.device.type == "cpu":
        raise UsageError(
            "train.precision: fp16 needs a GPU", why="this run is on the CPU", fix="use fp32 or bf16"
        )
    return Accelerator(
        cpu=cpu,
        mixed_precision=PRECISIONS[config.precision],
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)],
    )


def prepare_model(accelerator: Accelerator, model: nn.Module, *, averages: bool) -> nn.Module:
    """The model, on its device, as the loss runs it: under autocast where the run's precision is half.

    averages: whether gradients are averaged over several processes by torch's DistributedDataParallel.
    Without them this is what Accelerate does, but it loads torch's compiler and DTensor to look for either.
    """
    if averages and accelerator.num_processes > 1:
        prepared: nn.Module = accelerator.prepare_model(model)
        return prepared
    if accelerator.native_amp:
        autocast = get_mixed_precision_context_manager(True, accelerator.autocast_handler)
        # of the function below the method, so that copies of the model run the copy
        forward = model.forward.__func__ if inspect.ismethod(model.forward) else type(model).forward
        model.forward = MethodType(convert_outputs_to_fp32(autocast(forward)), model)
    return model


def plain_model(prepared: nn.Module) -> nn.Module:
    """The model inside what averages its gradients, itself otherwise."""
    return prepared.module if isinstance(prepared, DistributedDataParallel) else prepared


def joined(config: TrainConfig) -> World:
    """The processes that will train together, joined before anything slow is done by each of them."""
    return world_of(build_accelerator(config))


@contextlib.contextmanager
def accelerate_states() -> Iterator[None]:
    """Within the block an Accelerator may be built; afterwards Accelerate knows what it knew before.

    It keeps device, processes and precision in the process, where a caller may have an Accelerator of their
    own. Processes that were launched together stay joined.
    """
    states = (PartialState, AcceleratorState, GradientState)
    kept = {state: dict(state._shared_state) for state in states}
    try:
        yield
    finally:
        for state, content in kept.items():
            if state is not PartialState or not torch.distributed.is_initialized():
                state._shared_state.clear()
                state._shared_state.update(content)


@contextlib.contextmanager
def settings(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """What the steps of a training want of the process: see `process_settings` and `freed_memory_kept`."""
    with process_settings(device), freed_memory_kept():
        if config.deterministic:
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
        if config.allow_tf32:
            allow_tf32(device)
        yield


def _leave_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _require_launched_group(state: PartialState) -> None:
    """Processes that were launched together and do not see each other would all train the same thing."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != state.num_processes:
        raise UsageError(
            f"WORLD_SIZE is {launched}, but this process sees {state.num_processes}",
            why="something in this process set up Accelerate for a single process before",
            fix="start the run with torchrun in a fresh process, or unset WORLD_SIZE",
        )


def world_of(accelerator: Accelerator) -> World:
    """The processes that train together."""
    return World.current() if accelerator.num_processes > 1 else World.single()


class Agreed(NamedTuple):
    """What all processes know after they met: means, a signal that one received, whether one noted it."""

    means: list[float]
    signum: int | None
    noted: bool


def agree(
    accelerator: Accelerator, values: Sequence[Tensor], signum: int | None, *, noted: bool | None = None
) -> Agreed:
    """The means of some scalars over all processes, and a signal that any of them received; one collective.

    A value that is not finite in one process is not finite in the result of every process.
    noted: something that any of them may tell; None in all where there is nothing to tell.
    """
    dtype = torch.float32 if accelerator.device.type == "mps" else torch.float64
    stacked = torch.stack([value.detach().to(dtype) for value in values])
    if accelerator.num_processes == 1:
        return Agreed(stacked.tolist(), signum, bool(noted))
    known_signals = [float(signum == known) for known in STOP_SIGNALS]
    told = [] if noted is None else [float(noted)]
    flags = torch.tensor([*known_signals, *told], dtype=dtype, device=stacked.device)
    total = accelerator.reduce(
        torch.cat([stacked / accelerator.num_processes, flags]), reduction="sum"
    ).tolist()
    counts = total[len(values) :]
    raised = [known for known, count in zip(STOP_SIGNALS, counts, strict=False) if count > 0]
    return Agreed(
        total[: len(values)], int(raised[0]) if raised else None, bool(told) and counts[len(STOP_SIGNALS)] > 0
    )


def mean_metrics(accelerator: Accelerator, outputs: Sequence[LossOutput]) -> dict[str, float]:
    """The task's metrics, averaged over the micro-batches and the processes."""
    names = sorted(outputs[0].metrics)
    if not names:
        return {}
    means = [torch.stack([output.metrics[name].detach() for output in outputs]).mean() for name in names]
    return dict(zip(names, agree(accelerator, means, None).means, strict=True))


def gradient_norm(accelerator: Accelerator, parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of the whole gradient, the same in every process, freed of the loss scale."""
    if accelerator.scaler is not None:
        accelerator.unscale_gradients()
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    return whole(norm)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float, norm: Tensor) -> None:
    """Scale the gradient down to a norm of max_norm, if `norm`, its present one, is larger."""
    clip_grads_with_norm_(parameters, max_norm, norm)

"""The memory of an optimizer step: counted on tensors that have shapes alone, or as the step takes it.

A step on fake tensors is the trainer's own: forward, backward, clipping, update, averages, with the task's
loss on a batch that was prepared for real. What a kernel takes and frees inside itself, what an allocator
rounds, and what CUDA keeps for itself is not in these numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._pytree import tree_leaves, tree_map

from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import SamplesRounded
from genzoo.core.seeds import SampleStreams
from genzoo.core.sharded import own_part
from genzoo.core.types import Batch
from genzoo.nn.resting import as_on_a_device
from genzoo.training.allocations import AllocationCounter, Point
from genzoo.training.ema import ParameterAverage
from genzoo.training.held_objects import frozen_tensors, nothing_kept, resting_tensors
from genzoo.training.optim import build_optimizer
from genzoo.training.parts import Parts
from genzoo.training.profiles import PowerAverages

HOWS = ("on fake tensors", "in a pass", "by the device")


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one process, at the moment when a step holds the most.

    weights: buffers included.   helpers: frozen modules beside the model, such as a codec.   buckets: DDP's
    copies of the gradients.   activations: all else, what is saved for the backward pass above all.
    phase: when that is.   how: it was found, one of HOWS.   resting: weights in the host's memory, of which
    the device has copies while they are read; those are activations here.
    """

    weights: int
    helpers: int
    gradients: int
    optimizer: int
    averages: int
    buckets: int
    activations: int
    phase: str
    how: str
    resting: int = 0

    @property
    def total(self) -> int:
        """All together, on the device."""
        kept = self.weights + self.helpers + self.optimizer + self.averages + self.buckets
        return kept + self.gradients + self.activations


@dataclass(frozen=True)
class StepCount:
    """What a step on so many samples holds beside the weights.

    trainable: bytes of all gradients.   preparing: the most while the batch is encoded.   points: in forward
    and backward, gradient by gradient.   updating: the most beside the gradients in the update.   drawing:
    the most while previews are drawn, where that is known.
    """

    samples: int
    trainable: int
    optimizer: int
    averages: int
    preparing: int
    points: Sequence[Point]
    updating: int
    how: str
    drawing: int = 0

    def largest(self, share: float = 1.0) -> tuple[str, Point]:
        """The phase that holds the most, where a process keeps this share of the gradients, and its parts."""
        inside = max(self.points, key=lambda point: point.gradients * share + point.others)
        kept = round(self.trainable * share)
        before = round(self.points[0].gradients * share)  # of the micro-batches before this one
        phases = {
            "while the batch is encoded": Point(before, self.preparing),
            "in forward and backward": Point(round(inside.gradients * share), inside.others),
            "in the update": Point(kept, self.updating),
            "while previews are drawn": Point(0, self.drawing),  # gradients are gone after an update
        }
        return max(phases.items(), key=lambda item: item[1].gradients + item[1].others)


def memory_of(parts: Parts, count: StepCount) -> StepMemory:
    """The memory of this process."""
    world = parts.accelerator.num_processes
    phase, point = count.largest()
    resting = resting_tensors(parts)
    return StepMemory(
        weights=_size(_without(resting, _states(parts.model))),
        helpers=_size(_without(resting, frozen_tensors(parts))),
        gradients=point.gradients,
        optimizer=count.optimizer,
        averages=count.averages,
        buckets=count.trainable if world > 1 and not parts.sharded else 0,
        activations=point.others,
        phase=phase,
        how=count.how,
        resting=_size(resting),
    )


def fake_step(parts: Parts, batch: Batch, streams: SampleStreams, *, preparing: int) -> StepCount:
    """Count a step on fake tensors.   batch: prepared.   preparing: bytes that it took to prepare it."""
    model, config = parts.model, parts.config
    mode = _mode_of(model)
    with mode:
        states = {name: _fake(mode, tensor) for name, tensor in _named_states(model)}
        parameters = {name: states[name] for name in parts.parameters}
        inputs = tree_map(_without_values, dict(batch))
    counter = AllocationCounter(states.values())
    with (
        nothing_kept(parts.task),
        as_on_a_device(),
        mode,
        counter,
        _reparametrize_module(model, states),
        contextlib.ExitStack() as stack,
    ):
        average = ParameterAverage(parameters, config) if parts.average else None
        profiles = PowerAverages(parameters, config.ema_profiles) if parts.profiles else None
        averages = counter.live
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        trainable = counter.live - averages
        optimizer = build_optimizer(parameters, parts.optim).optimizer
        optimizer.step()  # the first makes what the optimizer keeps
        kept = counter.live - trainable
        if parts.plan.accumulation == 1:
            for parameter in parameters.values():
                parameter.grad = None
            for handle in counter.follow(parameters.values()):
                stack.callback(handle.remove)
        counter.hold(_tensors(inputs))
        counter.restart(0 if parts.plan.accumulation == 1 else trainable)
        parts.task.loss(model, inputs, streams).loss.backward()  # type: ignore[no-untyped-call]
        points = [Point(gradients, others - kept) for gradients, others in counter.points]
        counter.restart(trainable)
        _clip(parameters, config.clip_grad_norm)
        optimizer.step()
        if average:
            average.update()
        if profiles:
            profiles.update(1)
        updating = counter.points[-1].others - kept
    return StepCount(
        samples=len(streams),
        trainable=trainable,
        optimizer=kept - averages,
        averages=averages,
        preparing=preparing,
        points=points,
        updating=updating,
        how=HOWS[0],
    )


def fake_drawing(parts: Parts, num: int) -> int:
    """The most bytes beside the weights that drawing `num` samples together holds, on fake tensors; 0 for
    tasks that do not say what they do then.
    """
    drawing = able(parts.task, SamplesRounded)
    if drawing is None or not num:
        return 0
    mode = _mode_of(parts.model)
    with mode:
        states = {name: _fake(mode, tensor) for name, tensor in _named_states(parts.model)}
    counter = AllocationCounter([*states.values(), *frozen_tensors(parts)])
    whole = _reparametrize_module(parts.model, states)
    with nothing_kept(parts.task), as_on_a_device(), mode, counter, whole:
        drawing.sampling_pass(num)
    return counter.peak


def real_step(
    parts: Parts, run: Callable[[], float], batch: Batch, *, samples: int, preparing: int
) -> tuple[StepCount, float]:
    """Count while `run` goes forward and backward for real; the update is added up. Returns its loss too."""
    parameters = list(parts.parameters.values())
    trainable = sum(own_part(parameter).nbytes for parameter in parameters)
    if parts.device.type == "cuda":
        points, loss = _by_the_device(parts.device, run)
        how = HOWS[2]
    else:
        with AllocationCounter([*_states(parts.model), *frozen_tensors(parts)]) as counter:
            counter.hold(_tensors(batch))
            handles = [] if parts.sharded else counter.follow(parameters)
            with as_on_a_device():
                loss = run()
        for handle in handles:
            handle.remove()
        points, how = counter.points, HOWS[1]
    averaged = len(parts.config.ema_profiles) + (parts.average is not None)
    count = StepCount(
        samples=samples,
        trainable=trainable,
        optimizer=round(trainable * parts.optimization.slots),
        averages=trainable * averaged,
        preparing=preparing,
        points=points,
        updating=trainable if averaged else 0,  # the way from an average to its weights
        how=how,
    )
    return count, loss


def counted(parts: Parts, action: Callable[[], Any]) -> tuple[Any, int]:
    """What a real action returns, and the most bytes that it held."""
    if parts.device.type == "cuda":
        found: list[Any] = []

        def run() -> float:
            found.append(action())
            return 0.0

        points, _ = _by_the_device(parts.device, run)
        return found[0], points[0].others
    held = [*_states(parts.model), *frozen_tensors(parts)]
    with as_on_a_device(), AllocationCounter(held) as counter:
        result = action()
    return result, counter.peak


def _by_the_device(device: torch.device, run: Callable[[], float]) -> tuple[list[Point], float]:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    loss = run()
    return [Point(0, torch.cuda.max_memory_allocated(device) - before)], loss


def _clip(parameters: Mapping[str, nn.Parameter], limit: float | None) -> None:
    norm = get_total_norm([p.grad for p in parameters.values() if p.grad is not None])
    if limit is not None:
        clip_grads_with_norm_(parameters.values(), limit, norm)


def _mode_of(model: nn.Module) -> FakeTensorMode:
    """That of a model which has shapes alone already, or a new one."""
    modes = (tensor.fake_mode for tensor in model.parameters() if isinstance(tensor, FakeTensor))
    return next(modes, None) or FakeTensorMode(allow_non_fake_inputs=True)


def _fake(mode: FakeTensorMode, tensor: Tensor) -> Any:
    fake = _again(tensor) if isinstance(tensor, FakeTensor) else mode.from_tensor(tensor)
    vars(fake).update(vars(tensor))  # such as the mark of what does not decay
    return fake


def _again(tensor: FakeTensor) -> Tensor:
    """Another tensor of the same shape, a parameter where it is one."""
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)
    return tensor.detach()


def _without_values(leaf: Any) -> Any:
    return torch.empty(leaf.shape, dtype=leaf.dtype, device=leaf.device) if isinstance(leaf, Tensor) else leaf


def _tensors(batch: Batch) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(dict(batch)) if isinstance(leaf, Tensor)]


def _named_states(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _states(model: nn.Module) -> list[Tensor]:
    return [own_part(tensor) for _, tensor in _named_states(model)]


def _without(some: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    storages = {tensor.untyped_storage()._cdata for tensor in some}
    return [tensor for tensor in tensors if tensor.untyped_storage()._cdata not in storages]


def _size(tensors: Sequence[Tensor]) -> int:
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())

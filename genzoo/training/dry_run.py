"""What a run would be like, found out without an update or a file: memory, time, disk, its data."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)

from genzoo.core.errors import NonFiniteError, WeightsError
from genzoo.core.shapes_alone import has_values
from genzoo.core.types import Batch
from genzoo.data.inspection import evenly, inspect
from genzoo.data.sample_stream import SampleStream, step_positions
from genzoo.training.gpus_needed import gpus_needed
from genzoo.training.micro_step import micro_loss, prepared_batch
from genzoo.training.parts import Parts
from genzoo.training.step_memory import (
    HOWS,
    StepCount,
    counted,
    fake_drawing,
    fake_step,
    memory_of,
    real_step,
)
from genzoo.training.summary import Summary, summarise

logger = logging.getLogger(__name__)

FAKES_WILL_NOT_DO = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
FILES, SECONDS = 2000, 15.0  # that are read at most to find those that cannot be
FEW = 2, 3  # samples of the second step that is counted; two unless the first has as many
PATIENCE = 10.0  # seconds: a batch that took longer is not computed twice

Progress = Callable[[int, int], None]


def dry_run(
    parts: Parts,
    stream: SampleStream,
    output: Path,
    micro_batches: Sequence[Batch],
    progress: Progress | None = None,
    *,
    drawn: int = 0,
) -> Summary:
    """The memory of a step, and forward and backward of the first micro-batch, thrown away; a look at files.

    Where the memory would not do nothing is computed. stream: the data as training reads them.   progress:
    (files done, files to look at).   drawn: samples that previews draw together.
    """
    parts.prepared.train()
    batch = micro_batches[0]
    started = time.perf_counter()
    step = Step(parts, batch)
    seconds = time.perf_counter() - started
    count = step.count_fake(drawn)
    found = None if count is None else _summary(parts, output, batch, stream, count)
    if not has_weights(parts):
        if found is None:
            raise WeightsError(
                "the memory of a step cannot be counted without weights",
                why="this task's loss asks for values",
                fix="put the weights beside the configuration",
            )
    elif found is None or found.memory_may_do:
        started = time.perf_counter()
        if count is None:
            count, loss = step.count_real()
        else:
            loss = step.run()
        computing = seconds + time.perf_counter() - started
        if not abs(loss) < float("inf"):
            raise NonFiniteError(
                f"the loss of the first batch is {loss}", fix="look at the data and at the model"
            )
        if computing < PATIENCE:
            computing = _clocked(lambda: _forward_and_backward(parts, batch))
        reading = _clocked(lambda: _read(parts, stream))
        found = found or _summary(parts, output, batch, stream, count)
        found = replace(found, loss=loss, step_seconds=_step_seconds(parts, computing, reading))
    looked_at, unreadable = look_at_files(stream, progress)
    return replace(found, looked_at=looked_at, unreadable=unreadable)


class Step:
    """A micro-batch, prepared by the task, and the ways to count what a step with it takes."""

    def __init__(self, parts: Parts, batch: Batch) -> None:
        self.parts = parts
        made, self.preparing = counted(parts, lambda: prepared_batch(parts, batch))
        self.batch, self.streams = made

    def count_fake(self, drawn: int = 0) -> StepCount | None:
        """On fake tensors; None where they do not do: for parts of a model, on a GPU, or for this task.
        drawn: samples of previews.
        """
        if self.parts.sharded or (has_weights(self.parts) and self.parts.device.type != "cpu"):
            return None
        try:
            count = fake_step(self.parts, self.batch, self.streams, preparing=self.preparing)
            return replace(count, drawing=fake_drawing(self.parts, drawn))
        except FAKES_WILL_NOT_DO as error:
            logger.info("memory is counted in a pass: %s on tensors without values", type(error).__name__)
            return None

    def count_real(self) -> tuple[StepCount, float]:
        """In a pass, with its loss."""
        number = len(self.streams)
        return real_step(self.parts, self.run, self.batch, samples=number, preparing=self.preparing)

    def run(self) -> float:
        """Forward and backward; the loss."""
        return _pass(self.parts, self.parts.task.loss(self.parts.prepared, self.batch, self.streams).loss)


def _summary(parts: Parts, output: Path, batch: Batch, stream: SampleStream, count: StepCount) -> Summary:
    memory = memory_of(parts, count)
    few = next(number for number in FEW if number != count.samples)
    second = Step(parts, with_samples(batch, stream, few)).count_fake() if count.how == HOWS[0] else None
    gpus = [] if second is None else gpus_needed(parts, memory, count, second)
    return summarise(parts, output, memory=memory, gpus=gpus, without_weights=not has_weights(parts))


def with_samples(batch: Batch, stream: SampleStream, number: int) -> Batch:
    """So many samples, read like those of a batch, and the same ones in turn.

    What a prepared batch of another number of samples looks like its task alone knows: one makes several
    rows of a sample, another keeps a table that all share.
    """
    positions = batch["position"].tolist()
    return stream.fetch_batch([positions[index % len(positions)] for index in range(number)])[0]


def has_weights(parts: Parts) -> bool:
    """Whether the model is more than its shapes."""
    return all(map(has_values, parts.model.parameters()))


def look_at_files(stream: SampleStream, progress: Progress | None = None) -> tuple[int, list[str]]:
    """How many items were read, at even steps and in bounded time, and "file: reason" of the unreadable."""
    own = range(len(stream.dataset)) if stream.only is None else stream.only
    chosen = [own[place] for place in evenly(len(own), FILES)]
    looks = list(inspect(stream.dataset, chosen, seconds=SECONDS, closely=False, progress=progress))
    return len(looks), [look.error for _, look in looks if look.error]


def _forward_and_backward(parts: Parts, batch: Batch) -> float:
    return _pass(parts, micro_loss(parts, parts.prepared, batch).loss)


def _pass(parts: Parts, loss: Tensor) -> float:
    parts.accelerator.backward(loss)
    parts.optimizer.zero_grad(set_to_none=True)
    if parts.device.type != "cpu":
        torch.get_device_module(parts.device).synchronize()
    return float(loss.detach())


def _read(parts: Parts, stream: SampleStream) -> None:
    plan = parts.plan
    rank = parts.accelerator.process_index
    share = {"batch_size": plan.batch_size, "per_device": plan.per_device, "world": plan.processes}
    stream.fetch_batch(step_positions(1, rank=rank, **share)[0])


def _step_seconds(parts: Parts, computing: float, reading: float) -> float:
    """Workers read while the model computes; without them, one follows the other."""
    workers = parts.config.num_workers
    once = max(computing, reading / workers) if workers else computing + reading
    return once * parts.plan.accumulation


def _clocked(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started

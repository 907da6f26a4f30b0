"""What a run would be like, found out without an update or a file: memory, time, disk, its data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from genzoo.core.errors import NonFiniteError
from genzoo.core.types import Batch
from genzoo.data.inspection import evenly, inspect
from genzoo.data.sample_stream import SampleStream, step_positions
from genzoo.training.micro_step import micro_loss
from genzoo.training.parts import Parts
from genzoo.training.summary import Summary, activation_bytes, summarise

FILES, SECONDS = 2000, 15.0  # that are read at most to find those that cannot be
PATIENCE = 10.0  # seconds: a batch that took longer is not computed twice

Progress = Callable[[int, int], None]


def dry_run(
    parts: Parts,
    stream: SampleStream,
    output: Path,
    micro_batches: Sequence[Batch],
    progress: Progress | None = None,
) -> Summary:
    """Forward and backward of the first micro-batch, thrown away; again against the clock; a look at files.

    stream: the data as training reads them.   progress: (files done, files to look at).
    """
    parts.prepared.train()
    started = time.perf_counter()
    with activation_bytes(parts.model) as kept:
        loss = _forward_and_backward(parts, micro_batches[0])
    first = time.perf_counter() - started
    if not abs(loss) < float("inf"):
        raise NonFiniteError(
            f"the loss of the first batch is {loss}", fix="look at the data and at the model"
        )
    computing = first
    if first < PATIENCE:
        computing = _clocked(lambda: _forward_and_backward(parts, micro_batches[0]))
    found = summarise(parts, output, activations=sum(kept.values()), loss=loss)
    seconds = _step_seconds(parts, computing, _clocked(lambda: _read(parts, stream)))
    looked_at, unreadable = look_at_files(stream, progress)
    return replace(found, step_seconds=seconds, looked_at=looked_at, unreadable=unreadable)


def look_at_files(stream: SampleStream, progress: Progress | None = None) -> tuple[int, list[str]]:
    """How many items were read, at even steps and in bounded time, and "file: reason" of the unreadable."""
    own = range(len(stream.dataset)) if stream.only is None else stream.only
    chosen = [own[place] for place in evenly(len(own), FILES)]
    looks = list(inspect(stream.dataset, chosen, seconds=SECONDS, closely=False, progress=progress))
    return len(looks), [look.error for _, look in looks if look.error]


def _forward_and_backward(parts: Parts, batch: Batch) -> float:
    loss = micro_loss(parts, parts.prepared, batch).loss
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

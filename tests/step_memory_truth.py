"""What a step was foretold to take, and what it takes: for any trainer."""

from __future__ import annotations

from genzoo.nn.resting import as_on_a_device
from genzoo.training.allocations import AllocationCounter
from genzoo.training.dry_run import Step
from genzoo.training.held_objects import frozen_tensors, resting_tensors
from genzoo.training.micro_step import micro_loss
from genzoo.training.step_memory import StepMemory, memory_of
from genzoo.training.trainer import Trainer


def foretold(trainer: Trainer) -> StepMemory:
    step = Step(trainer.parts, next(trainer._batches())[0])
    return memory_of(trainer.parts, step.count_fake() or step.count_real()[0])


def taken(trainer: Trainer) -> int:
    """The most that two real steps hold, as on a GPU, with what was there before, but for what the task holds
    frozen and what lies in the host's memory.
    """
    parts = trainer.parts
    kept = [*parts.model.parameters(), *parts.model.buffers()]
    averages = parts.average.tensors().values() if parts.average else ()
    steps = [next(trainer._batches()) for _ in range(2)]
    with as_on_a_device(), AllocationCounter([*frozen_tensors(parts), *resting_tensors(parts)]) as counter:
        counter.hold([*kept, *averages])
        for micro_batches in steps:
            for parameter in parts.parameters.values():
                parameter.grad = None
            for batch in micro_batches:
                micro_loss(parts, parts.model, batch).loss.backward()
            parts.optimizer.step()
            if parts.average:
                parts.average.update()
    return counter.peak

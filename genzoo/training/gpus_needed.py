"""How many GPUs of which memory a recipe asks for, foretold from two counted steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from genzoo.core.contracts import able
from genzoo.core.contracts.execution import NamesBlocks
from genzoo.core.errors import RecipeError
from genzoo.training.allocations import Point
from genzoo.training.batch_plan import plan_batch
from genzoo.training.parts import Parts
from genzoo.training.step_memory import StepCount, StepMemory

SIZES = (12, 24, 40, 80, 141)  # GB
NUMBERS = (1, 2, 4, 8, 16, 32, 64)
USABLE = 0.94  # the rest is lost to rounding and gaps
CUDA = 10**9  # what CUDA and its libraries take for themselves
GATHERED = (
    4  # copies of the largest block: its weights and the next one's, its gradients before and in exchange
)


class Needed(NamedTuple):
    """GPUs of `gigabytes` that a recipe needs at least; None where 64 are too few or none can be."""

    gigabytes: int
    ddp: int | None
    sharded: int | None


@dataclass(frozen=True)
class Shards:
    """Bytes that a process of a sharded model holds whole at once: the root's, and of the largest block."""

    root: int
    block: int


def gpus_needed(parts: Parts, memory: StepMemory, count: StepCount, second: StepCount) -> list[Needed]:
    """For each size, the smallest number of GPUs, a power of two that divides the batch.

    memory: of this process.   count, second: steps of two numbers of samples.
    """
    foretell = Foretold(parts, memory, count, second)
    found = []
    for size in SIZES:
        room = size * 10**9 * USABLE - CUDA
        ddp = next((n for n in NUMBERS if _fits(foretell.ddp, n, room)), None)
        sharded = next((n for n in NUMBERS if _fits(foretell.sharded, n, room)), None)
        found.append(Needed(size, ddp, sharded))
    return found


class Foretold:
    """Memory of one of several GPUs. What a step holds is taken as a straight line in its samples."""

    def __init__(self, parts: Parts, memory: StepMemory, count: StepCount, second: StepCount) -> None:
        self.parts, self.memory = parts, memory
        self._ends = (count, second)
        self.shards = shards_of(parts)

    def ddp(self, number: int) -> int | None:
        """Bytes where every GPU holds the whole model; None where the batch cannot be shared out."""
        count = self._count(number)
        if count is None:
            return None
        _, point = count.largest()
        buckets = count.trainable if number > 1 else 0
        kept = self.memory.weights + self.memory.helpers + count.optimizer + count.averages + buckets
        return kept + point.gradients + point.others

    def sharded(self, number: int) -> int | None:
        """Bytes where each holds a part of the model; None also for a model that cannot be shared out."""
        count = self._count(number)
        if count is None or (number > 1 and self.shards is None):
            return None
        if number == 1 or self.shards is None:
            return self.ddp(number)
        _, point = count.largest(1 / number)
        kept = (self.memory.weights + count.optimizer + count.averages) // number + self.memory.helpers
        return kept + point.gradients + point.others + self.shards.root + GATHERED * self.shards.block

    def _count(self, number: int) -> StepCount | None:
        config = self.parts.config
        try:
            plan = plan_batch(config.batch_size, config.micro_batch_size, number)
        except RecipeError:
            return None
        return between(*self._ends, plan.per_device)


def between(first: StepCount, second: StepCount, samples: int) -> StepCount:
    """A step of other samples, on the line through two."""
    share = (samples - first.samples) / (second.samples - first.samples)

    def line(one: int, other: int) -> int:
        return round(one + share * (other - one))

    pairs = zip(first.points, second.points, strict=False)
    points = [Point(a.gradients, line(a.others, b.others)) for a, b in pairs]
    return replace(first, samples=samples, points=points, preparing=line(first.preparing, second.preparing))


def shards_of(parts: Parts) -> Shards | None:
    """What is gathered at once; None for a model that names no blocks."""
    naming = able(parts.model, NamesBlocks)
    if naming is None:
        return None
    sizes = [sum(one.nbytes for one in block.parameters()) for block in naming.sharded_blocks()]
    whole = sum(one.nbytes for one in parts.model.parameters())
    return Shards(root=whole - sum(sizes), block=max(sizes))


def described(needed: Sequence[Needed]) -> str:
    """One line for people."""
    return "; ".join(
        f"{one.gigabytes} GB: {_number(one.ddp)} (DDP), {_number(one.sharded)} (sharded)" for one in needed
    )


def _number(number: int | None) -> str:
    return "-" if number is None else str(number)


def _fits(needs: Callable[[int], int | None], number: int, room: float) -> bool:
    bytes_needed = needs(number)
    return bytes_needed is not None and bytes_needed <= room

"""Sampling in aligned blocks: image i depends on the seed and on i alone.

Matrix products of another batch shape may round differently, so every forward pass has the same shape: blocks
of `block_size` consecutive indices, the last one filled up. Which process computes a block, and how many
blocks are asked for at once, then changes nothing, not even the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from genzoo.api.recipes.sections import BLOCK_SIZE
from genzoo.api.sampling.non_finite import finite_samples
from genzoo.api.sampling.options import sorted_options
from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import TakesOnceForAll
from genzoo.core.errors import UsageError
from genzoo.core.limits import MAX_SAMPLES
from genzoo.core.processes import World
from genzoo.core.seeds import SampleStreams

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import Batch, Task


@dataclass(frozen=True)
class SamplePlan:
    """What to sample. conditions: one row for each of `num` indices. options: for task.sample."""

    num: int
    seed: int
    conditions: Batch
    options: Mapping[str, Any] = field(default_factory=dict)
    block_size: int = BLOCK_SIZE

    def blocks(self) -> list[range]:
        """The indices of every block; the last may be short."""
        starts = range(0, self.num, self.block_size)
        return [range(start, min(start + self.block_size, self.num)) for start in starts]


def make_plan(
    task: Task, *, num: int | None, seed: int, block_size: int, options: Mapping[str, Any]
) -> SamplePlan:
    """Sort a user's options into conditions (class_labels, ...) and sampler options (steps, ...).

    num: when left out, as many as the longest condition, else 1.   Raises UsageError for an option that is
    neither, and for conditions that the task cannot use.
    """
    given, rest = sorted_options(task, options)
    shared = able(task, TakesOnceForAll)
    rows = [value for key, value in given.items() if shared is None or key not in shared.once_for_all]
    lengths = [len(value) for value in rows if isinstance(value, (list, tuple, torch.Tensor))]
    num = max(lengths, default=1) if num is None else num
    if num < 1 or block_size < 1:
        raise UsageError(f"num is {num} and block_size {block_size}; both are at least 1")
    if max(num, block_size) > MAX_SAMPLES:
        raise UsageError(f"num is {num:,} and block_size {block_size:,}; both are at most {MAX_SAMPLES:,}")
    return SamplePlan(num, seed, task.conditions(num, **given), rest, block_size)


def sample_block(task: Task, plan: SamplePlan, block: range) -> Tensor:
    """The pixels of one block: (len(block), c, h, w), on the CPU. Raises NonFiniteError."""
    indices = range(block.start, block.start + plan.block_size)
    rows = [
        min(index, plan.num - 1) for index in indices
    ]  # fills the last block up; its extra rows are dropped
    conditions = {key: _take(value, rows) for key, value in plan.conditions.items()}

    def draw() -> Tensor:
        generator = SampleStreams.from_seeds(plan.seed, "sample", positions=indices)
        return task.sample(task.model, conditions, generator, **plan.options)

    return finite_samples(task.model, draw, block)[: len(block)].cpu()


def sample_all(
    task: Task, plan: SamplePlan, world: World | None = None, blocks: Sequence[range] | None = None
) -> Iterator[tuple[range, Tensor]]:
    """Every block with its pixels, in order.

    world: the processes that share the blocks; every one of them gets them all, and they meet after each.
    They also make the same number of forward passes, as a model needs of which each process holds a part.
    blocks: those of the plan that are wanted; all when left out.
    """
    world, blocks = world or World.single(), plan.blocks() if blocks is None else blocks
    for start in range(0, len(blocks), world.size):
        together = blocks[start : start + world.size]
        mine = together[min(world.rank, len(together) - 1)]
        pixels = world.together(partial(sample_block, task, plan, mine))
        yield from zip(together, world.gather(pixels), strict=False)


def plain_conditions(conditions: Batch, index: int) -> dict[str, Any]:
    """The condition of one image as JSON values; what is not a number or text is left to the settings."""
    return {key: _plain(value[index]) for key, value in conditions.items() if _is_plain(value[index])}


def _take(value: Any, rows: list[int]) -> Any:
    return value[rows] if isinstance(value, torch.Tensor) else [value[row] for row in rows]


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, float, str)) or (isinstance(value, torch.Tensor) and value.ndim == 0)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value

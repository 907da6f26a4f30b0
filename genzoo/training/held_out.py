"""The loss on data that training never sees, at noise levels and noise that never change.

Every held-out sample is looked at once in each of K strata of the noise level: in stratum k at
(k + j) / K, with j and the noise drawn from the sample's own stream, never from those of training. So two
checkpoints are compared on the same table, and what is left of their difference is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import HoldsOut
from genzoo.core.errors import UsageError
from genzoo.core.processes import World
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Dataset, Task
from genzoo.data.collate import collate


@dataclass(frozen=True)
class HeldOutTable:
    """losses: (n, k) float64, by sample and stratum; stratum 0 is the noisiest.   density: (n, k), how often
    training meets such a level, relative to evenly."""

    losses: Tensor
    density: Tensor

    def values(self) -> dict[str, float]:
        """ "loss" over all levels alike, "loss_se" (its standard error over samples, of two or more),
        "loss_trained" as training weighs the levels, and "stratum/0", ...
        """
        strata = self.losses.mean(0).tolist()
        trained = (self.losses * self.density).sum() / self.density.sum()
        named = {f"stratum/{index}": value for index, value in enumerate(strata)}
        each = self.losses.mean(1)
        error = {} if len(each) < 2 else {"loss_se": each.std(correction=1).item() / len(each) ** 0.5}
        return {"loss": self.losses.mean().item(), **error, "loss_trained": trained.item(), **named}


@dataclass(frozen=True)
class Variances:
    """Of a table: total = within + between. Strata remove what lies between them from a mean's error."""

    total: float
    within: float
    between: float


def variances(losses: Tensor) -> Variances:
    """Of losses (n, k), as populations: over all, within the strata, and between their means."""
    means = losses.mean(0)
    within = (losses - means).square().mean()
    between = (means - losses.mean()).square().mean()
    total = (losses - losses.mean()).square().mean()
    return Variances(total.item(), within.item(), between.item())


def paired_gain(first: Tensor, second: Tensor) -> float:
    """How much less the difference of two means varies on one table than on two: (Va + Vb) / Var(a - b)."""
    difference = (first - second).flatten()
    return ((first.var(unbiased=False) + second.var(unbiased=False)) / difference.var(unbiased=False)).item()


def stratified(jitter: Tensor, stratum: int, strata: int) -> Tensor:
    """Levels in [0, 1) of one stratum.   jitter: (b,) in [0, 1)."""
    return (stratum + jitter) / strata


class HeldOutLoss:
    """Measures a task on some items of a data set.

    indices: which items.   strata: of the noise level.   block_size: samples in one forward pass; blocks are
    aligned and filled up, so that the number of processes changes nothing, not even the last bit.
    """

    def __init__(
        self, task: Task, dataset: Dataset, indices: Sequence[int], *, strata: int, seed: int, block_size: int
    ) -> None:
        ability = able(task, HoldsOut)
        if ability is None:
            raise UsageError(
                "this task has no held-out loss", where="held_out", fix="leave the section out of the recipe"
            )
        self.task, self.dataset, self.indices = ability, dataset, list(indices)
        self.strata, self.seed, self.block_size = strata, seed, block_size

    @torch.no_grad()
    def measure(
        self, model: nn.Module, device: torch.device, dtype: torch.dtype | None, world: World
    ) -> HeldOutTable:
        """The table of a model in evaluation mode; every process gets the whole of it."""
        blocks = list(self._blocks())
        rows: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(blocks), world.size):
            together = blocks[start : start + world.size]
            mine = together[min(world.rank, len(together) - 1)]
            rows += world.gather(self._block(model, mine, device, dtype))[: len(together)]
        count = len(self.indices)
        losses, density = (torch.cat(parts)[:count] for parts in zip(*rows, strict=True))
        return HeldOutTable(losses, density)

    def _blocks(self) -> Iterator[range]:
        for start in range(0, len(self.indices), self.block_size):
            yield range(start, start + self.block_size)

    def _block(
        self, model: nn.Module, block: range, device: torch.device, dtype: torch.dtype | None
    ) -> tuple[Tensor, Tensor]:
        """(b, k) losses and densities of one block, its surplus rows included."""
        rows = [min(row, len(self.indices) - 1) for row in block]
        items = collate([dict(self.dataset.fetch(self.indices[row])) for row in rows])
        batch = {key: _moved(value, device, dtype) for key, value in items.items()}
        losses, density = [], []
        for stratum in range(self.strata):
            streams = SampleStreams.from_seeds(self.seed, "held-out", stratum, positions=block)
            level = stratified(streams.rand().double(), stratum, self.strata)
            prepared = self.task.held_out_batch(batch, streams, level)
            losses.append(self.task.sample_losses(model, prepared).double().cpu())
            density.append(self.task.level_density(level))
        return torch.stack(losses, 1), torch.stack(density, 1)


def _moved(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(device=device, dtype=dtype if value.is_floating_point() else None)

"""From images to what the metrics need: streaming statistics, and rows only where a metric asks for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.errors import DataError, UsageError
from genzoo.evaluation.statistics import BLOCK, FeatureStatistics, check_features, gather_statistics

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.processes import World
    from genzoo.evaluation.features import FeatureNetwork

PIECE = 16  # batches between two meetings
Batches = Iterable[tuple["Tensor", list[int]]]


@dataclass
class Features:
    """statistics: by output.   rows: kept outputs, (n, d) float32 on the CPU.   constant: such images seen.

    exact: whether float32 holds the outputs as the network gave them.
    seconds: time spent in "load", "network" and "statistics".
    """

    count: int = 0
    statistics: dict[str, FeatureStatistics] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    constant: int = 0
    exact: bool = True
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("load", "network", "statistics"), 0.0)
    )


class Extraction:
    """Features that grow batch by batch; no image is kept, and rows only where `keep` says so (None: all)."""

    def __init__(
        self,
        network: FeatureNetwork,
        *,
        statistics: Iterable[str] = ("pool",),
        rows: Iterable[str] = (),
        keep: Sequence[bool] | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self.network, self.keep, self.on_batch = network, keep, on_batch
        self.statistics, self.rows = sorted(set(statistics)), sorted(set(rows))
        self._found = Features(statistics={name: FeatureStatistics() for name in self.statistics})
        self._kept: dict[str, list[Tensor]] = {name: [] for name in self.rows}

    def take(self, data: Batches) -> None:
        """Run the network over batches. Raises UsageError for an output that it lacks."""
        found, clock = self._found, time.perf_counter()
        for batch, constant in data:
            clock = _lap(found, "load", clock)
            outputs = self._outputs(batch)
            clock = _lap(found, "network", clock)
            for name in self.statistics:
                found.statistics[name].update(outputs[name])
            for name in self.rows:
                check_features(outputs[name], first=found.count)
                found.exact &= outputs[name].dtype != torch.float64
                self._kept[name].append(_chosen(outputs[name], self.keep, found.count).float().cpu())
            found.count += len(batch)
            found.constant += len(constant)
            if self.on_batch is not None:
                self.on_batch(found.count)
            clock = _lap(found, "statistics", clock)

    def features(self) -> Features:
        """Those of all batches. Raises DataError when there was none."""
        if not self._found.count:
            raise DataError("there are no images to judge")
        self._found.rows = {name: torch.cat(parts) for name, parts in self._kept.items()}
        return self._found

    def _outputs(self, batch: Tensor) -> Mapping[str, Tensor]:
        outputs = self.network.extract(batch)
        for name in {*self.statistics, *self.rows}:
            if name not in outputs:
                raise UsageError(f"{self.network.name} has no output {name!r}; it has {', '.join(outputs)}")
        if batch.is_cuda or outputs[next(iter(outputs))].is_cuda:
            torch.cuda.synchronize()
        return outputs


def extract(data: Batches, network: FeatureNetwork, **options: Any) -> Features:
    """The features of all batches at once; options: those of `Extraction`."""
    extraction = Extraction(network, **options)
    extraction.take(data)
    return extraction.features()


def extract_together(
    data: Iterator[tuple[Tensor, list[int]]], extraction: Extraction, world: World, *, num_batches: int
) -> Features:
    """The features of this process's batches, in pieces between which all processes meet.

    num_batches: of the process that has the most. Whoever is done early then waits for a piece, and not for
    all the work of the others, which may take longer than they have patience.
    """
    for _ in range(-(-num_batches // PIECE)):
        world.together(lambda: extraction.take(islice(data, PIECE)))
    return world.together(extraction.features)


def _chosen(rows: Tensor, keep: Sequence[bool] | None, first: int) -> Tensor:
    if keep is None:
        return rows
    return rows[torch.tensor(keep[first : first + len(rows)], dtype=torch.bool, device=rows.device)]


def _lap(found: Features, stage: str, since: float) -> float:
    now = time.perf_counter()
    found.seconds[stage] += now - since
    return now


def gather_features(part: Features, world: World, device: str = "cpu") -> Features:
    """All processes' features joined in rank order, in every process.

    Where every row is kept as it was, the first process takes their statistics anew, on its `device`: they
    are those of one process, bit for bit. Others are merged, which may change their last bits.
    """
    if world.size == 1:
        return part
    parts = world.gather((part.count, part.constant, part.rows, part.exact))
    joined = Features(
        count=sum(count for count, _, _, _ in parts),
        constant=sum(constant for _, constant, _, _ in parts),
        rows={name: torch.cat([rows[name] for _, _, rows, _ in parts]) for name in part.rows},
        exact=all(exact for _, _, _, exact in parts),
        seconds=part.seconds,
    )
    for name, own in part.statistics.items():
        rows = joined.rows.get(name)
        if rows is None or len(rows) < joined.count or not joined.exact:
            joined.statistics[name] = gather_statistics(own, world)
        else:
            joined.statistics[name] = world.on_first(partial(_statistics_of, rows, device))
    return joined


def _statistics_of(rows: Tensor, device: str) -> FeatureStatistics:
    found = FeatureStatistics()
    for block in rows.split(BLOCK):
        found.update(block.to(device))
    return found.on_cpu()  # others unpickle it, on devices of their own

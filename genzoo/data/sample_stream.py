"""The order of the data as a pure function of (seed, position): any step is reached without replaying others.

Position p = 0, 1, 2, ... counts samples over the whole run and all processes. It lies in epoch p // n and
shows item `permutation(seed, epoch, n)[p % n]`. Optimizer step s of global batch size B uses positions [s B,
(s+1) B); which process reads which of them is decided last, so neither resuming, nor the number of
processes, nor accumulation, nor loader workers change what a step is trained on. Augmentation is drawn from
a generator seeded by the position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import FetchesMany, augments
from genzoo.core.errors import DataError, UsageError
from genzoo.core.seeds import generator_for
from genzoo.core.types import Dataset
from genzoo.data.collate import collate
from genzoo.data.loader_workers import NOTHING, Workers

Bad = dict[int, str]
"""Unreadable items: index -> file and reason."""


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """The order of the n items in one epoch: (n,) int64. Cached; do not write to it."""
    return torch.randperm(n, generator=generator_for(seed, "order", epoch))


class SampleStream:
    """A data set seen as an endless sequence of samples, addressed by position.

    An item that raises DataError is replaced by the next readable one of the same epoch and noted in `bad`;
    more than `max_bad` distinct ones in one process are an error that names them. A data set may have the
    abilities `Augments` and `FetchesMany` of genzoo.core.contracts.datasets.   only: indices of the items to
    show, all when left out.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        seed: int,
        shuffle: bool = True,
        max_bad: int = 0,
        only: Sequence[int] | None = None,
    ) -> None:
        if len(dataset) == 0:
            raise DataError("the data set is empty", fix="check data.root and the split")
        self.dataset, self.seed, self.shuffle, self.max_bad = dataset, seed, shuffle, max_bad
        self.only = None if only is None else list(only)
        self.bad: Bad = {}
        self.reading = torch.tensor(NOTHING)  # the item that is being read, for whoever waits for it
        self._augments = augments(dataset)

    def index(self, position: int, skip: int = 0) -> int:
        """The item shown at a position, or the `skip`-th after it in the same epoch (cyclic)."""
        n = len(self)
        epoch, offset = divmod(position, n)
        offset = (offset + skip) % n
        item = int(permutation(self.seed, epoch, n)[offset]) if self.shuffle else offset
        return item if self.only is None else self.only[item]

    def __len__(self) -> int:
        """How many items one epoch has."""
        return len(self.dataset) if self.only is None else len(self.only)

    def fetch(self, position: int) -> dict[str, Any]:
        """The item at a position, with "position" and "index" (of the item really read) added."""
        return self._fetch(position, {})

    def fetch_batch(self, positions: Sequence[int]) -> tuple[dict[str, Any], Bad]:
        """The collated items at some positions, and the unreadable ones that were replaced on the way."""
        bad: Bad = {}
        together = able(self.dataset, FetchesMany)
        if together is not None:
            indices = [self.index(position) for position in positions]
            self.reading.fill_(indices[0])
            try:
                generators = [self._generator(position) for position in positions]
                batch = dict(together.fetch_many(indices, generators))
            except DataError:
                pass  # one by one below, which tells the unreadable ones from the others
            else:
                return batch | {"position": torch.tensor(positions), "index": torch.tensor(indices)}, bad
        return collate([self._fetch(position, bad) for position in positions]), bad

    def note(self, bad: Bad) -> None:
        """Remember unreadable items. Raises DataError when there are more than max_bad."""
        self.bad.update(bad)
        if len(self.bad) > self.max_bad:
            raise too_many_bad(self.bad, self.max_bad)

    def _fetch(self, position: int, bad: Bad) -> dict[str, Any]:
        for skip in range(len(self)):
            index = self.index(position, skip)
            # known bad ones are tried again: a video may fail at one place only, and whether an item is
            # replaced must depend on the position, not on what this process happened to read before
            self.reading.fill_(index)
            try:
                item = dict(self.dataset.fetch(index, self._generator(position)))
            except DataError as error:
                bad[index] = one_line(error)
                self.note({index: bad[index]})
            else:
                return item | {"position": position, "index": index}
        raise DataError("not one item of the data set can be read", why="; ".join(list(bad.values())[:3]))

    def _generator(self, position: int) -> torch.Generator | None:
        return generator_for(self.seed, "augment", position) if self._augments else None


def too_many_bad(bad: Bad, max_bad: int) -> DataError:
    """The error for more unreadable items than may be replaced."""
    shown = "; ".join(list(bad.values())[:3])
    return DataError(
        f"{len(bad)} unreadable item(s); at most max_bad={max_bad} may be replaced",
        why=shown + (" ..." if len(bad) > 3 else ""),
        fix=f"mend or remove them, or allow them with train.max_bad={len(bad)} or more",
    )


def one_line(error: DataError) -> str:
    """An error as 'file: reason (way on)', for lists."""
    told = ": ".join(part for part in (error.where, error.what, error.why) if part)
    return f"{told} ({error.fix})" if error.fix else told


def step_positions(step: int, *, batch_size: int, per_device: int, rank: int, world: int) -> list[range]:
    """The positions one process reads in one optimizer step, a range for each of its micro-batches."""
    accumulation = batch_size // (per_device * world)
    starts = [step * batch_size + (a * world + rank) * per_device for a in range(accumulation)]
    return [range(start, start + per_device) for start in starts]


def batches(
    stream: SampleStream,
    *,
    batch_size: int,
    per_device: int,
    rank: int = 0,
    world: int = 1,
    start_step: int = 0,
    num_workers: int = 0,
    pin_memory: bool = False,
    loader_timeout: float | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """The micro-batches of each optimizer step from `start_step` on, without end.

    batch_size: global; a multiple of per_device * world. Each micro-batch holds the data set's keys with a
    leading axis (b,), "position" and "index" (b,) int64, and "bad": list of "file: reason" that were
    replaced. Workers are deaf to the signals that stop a run. Raises LoaderError for one that was killed, and
    when no batch comes for `loader_timeout` seconds, however it is read; None waits for ever.
    """
    if min(batch_size, per_device, world) < 1 or batch_size % (per_device * world):
        raise UsageError(
            f"batch_size {batch_size} is not a multiple of {per_device} per device x {world} processes",
            fix="choose train.micro_batch_size so that it divides batch_size / processes",
        )
    if not 0 <= rank < world:
        raise UsageError(f"rank {rank} is outside the {world} processes")
    cut = {"batch_size": batch_size, "per_device": per_device, "rank": rank, "world": world}
    return _batches(stream, cut, start_step, num_workers, pin_memory, loader_timeout)


def _batches(
    stream: SampleStream,
    cut: dict[str, int],
    start_step: int,
    num_workers: int,
    pin_memory: bool,
    loader_timeout: float | None,
) -> Iterator[list[dict[str, Any]]]:
    workers = Workers(stream.dataset, num_workers, loader_timeout)
    loader = workers.loader(
        _Positions(stream, workers.reading),
        batch_sampler=_Steps(cut, start_step),
        collate_fn=_identity,
        pin_memory=pin_memory,
    )
    step: list[dict[str, Any]] = []
    with workers.started(loader) as micro_batches:
        for batch, bad in micro_batches:
            if isinstance(batch, Exception):
                raise batch
            stream.note(bad)
            step.append(batch | {"bad": list(bad.values())})
            if len(step) == cut["batch_size"] // (cut["per_device"] * cut["world"]):
                yield step
                step = []


class _Steps:
    """Batch sampler: the positions of all micro-batches from the start on."""

    def __init__(self, cut: dict[str, int], start_step: int) -> None:
        self.cut, self.start_step = cut, start_step

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_step
        while True:
            yield from map(list, step_positions(step, **self.cut))
            step += 1


class _Positions(torch.utils.data.Dataset):
    """What loader workers hold. Errors travel as values: the loader would wrap them in a traceback."""

    def __init__(self, stream: SampleStream, reading: Tensor) -> None:
        self.stream, self.reading = stream, reading

    def __getitems__(self, positions: Sequence[int]) -> tuple[dict[str, Any] | DataError, Bad]:
        worker = torch.utils.data.get_worker_info()
        self.stream.reading = self.reading[0 if worker is None else worker.id]
        try:
            return self.stream.fetch_batch(positions)
        except DataError as error:
            return error, {}
        finally:
            self.stream.reading.fill_(NOTHING)


def _identity(batch: Any) -> Any:
    return batch

"""A data set without the items that cannot be read, for whoever looks at all of it.

Training replaces such items as it meets them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import torch

from genzoo.core.errors import DataError
from genzoo.data.sample_stream import one_line, too_many_bad

if TYPE_CHECKING:
    from genzoo.core.types import Dataset

logger = logging.getLogger(__name__)
THREADS = 4
_OF_AN_ITEM = ("fetch", "path", "content", "stamp", "annotations")


class Readable:
    """Some items of a data set, in order; in everything else it is that data set.

    notes: which items were left out, and why.
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int], bad: Sequence[str]) -> None:
        self.dataset, self.indices = dataset, list(indices)
        some = "; ".join(bad[:3]) + (" ..." if len(bad) > 3 else "")
        self.notes = [f"{len(bad)} of {len(dataset)} items cannot be read and are left out: {some}"]

    def __len__(self) -> int:
        return len(self.indices)

    def __getattr__(self, name: str) -> Any:
        if name in ("dataset", "indices") or name.startswith("__"):  # asked for by whoever copies it
            raise AttributeError(name)
        value = getattr(self.dataset, name)
        if name in _OF_AN_ITEM:
            return lambda index, *rest: value(self.indices[index], *rest)
        if name == "fetch_many":
            return lambda indices, *rest: value([self.indices[index] for index in indices], *rest)
        if name == "labels" and value is not None:
            return value[torch.tensor(self.indices)]
        if name.endswith("fingerprint"):
            return f"{value}|without {len(self.dataset) - len(self)}"
        return value


def readable(dataset: Dataset, max_bad: int) -> Dataset:
    """The data set without its unreadable items, of which at most `max_bad` may be; itself when none may be.

    Every item is read once, unless max_bad is 0: whoever meets a bad one then raises its error. Raises
    DataError that names the items when there are more.
    """
    if max_bad <= 0:
        return dataset
    bad: dict[int, str] = {}
    for index, error in reading_errors(dataset.fetch, range(len(dataset))):
        if error is not None:
            bad[index] = one_line(error)
            if len(bad) > max_bad:
                raise too_many_bad(bad, max_bad)
    if not bad:
        return dataset
    left = Readable(dataset, [index for index in range(len(dataset)) if index not in bad], list(bad.values()))
    if not left.indices:
        raise DataError("not one item of the data set can be read", why=next(iter(bad.values())))
    logger.warning("%s", left.notes[0])
    return cast("Dataset", left)


def reading_errors(
    read: Callable[[int], object], indices: Sequence[int]
) -> Iterator[tuple[int, DataError | None]]:
    """Every number, with the DataError that `read` raises for it, if any; THREADS at a time."""

    def look(index: int) -> DataError | None:
        try:
            read(index)
        except DataError as error:
            return error
        return None

    step = THREADS * 64  # so that too many are noticed before all are read
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(indices), step):
            part = indices[start : start + step]
            yield from zip(part, pool.map(look, part), strict=True)

"""`dataset[i]`, for those who look into their data by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genzoo.core.types import Dataset


class Indexed:
    """A data set whose items are also found by `dataset[i]` and in a loop, without augmentation."""

    def __getitem__(self: Dataset, index: int) -> dict[str, Any]:
        return self.fetch(range(len(self))[index])

    def __iter__(self: Dataset) -> Iterator[dict[str, Any]]:
        return map(self.fetch, range(len(self)))

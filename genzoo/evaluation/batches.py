"""Pictures and clips for a feature network, in batches that threads read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from genzoo.core.errors import DataError
from genzoo.data.picture_sets import PictureSet

if TYPE_CHECKING:
    from torch import Tensor

Prepare = Callable[[Image.Image], "Tensor"]


def batches(
    pictures: PictureSet,
    *,
    batch_size: int,
    indices: Sequence[int] | None = None,
    prepare: Prepare | None = None,
    workers: int = 4,
) -> Iterator[tuple[Tensor, list[int]]]:
    """Batches in order with the indices of their constant pictures; decoding runs ahead in threads.

    Without `prepare`: uint8 (b, 3, h, w), of clips (b, 3, f, h, w), and mixed sizes raise DataError. With it:
    its outputs stacked.
    """
    order = range(len(pictures)) if indices is None else indices
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    expected: list[tuple[int, ...]] = []

    def load(part: Sequence[int]) -> tuple[Tensor, list[int]]:
        arrays = [pictures.read(index) for index in part]
        constant = [index for index, array in zip(part, arrays, strict=True) if array.min() == array.max()]
        if prepare is not None:
            return torch.stack([prepare(Image.fromarray(array)) for array in arrays]), constant
        for index, array in zip(part, arrays, strict=True):
            _same_size(expected, array.shape[:-1], pictures.name(index))
        return torch.from_numpy(np.stack(arrays)).movedim(-1, 1), constant

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        waiting: deque[Future[tuple[Tensor, list[int]]]] = deque()
        for part in parts:
            waiting.append(pool.submit(load, part))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _same_size(expected: list[tuple[int, ...]], size: tuple[int, ...], name: str) -> None:
    if not expected:
        expected.append(size)
    if size != expected[0]:
        sizes = [" x ".join(map(str, one)) for one in (expected[0], size)]
        what = "images" if len(size) == 2 else "clips"
        raise DataError(
            f"{what} have mixed sizes: {name} is {sizes[1]}, others are {sizes[0]}",
            why="this feature network takes whole batches, and resizing them first would change the number",
            fix="bring all of them to one size, and state how",
        )

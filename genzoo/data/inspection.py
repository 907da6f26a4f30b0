"""Look at items of a data set one by one: which cannot be read, how large they are, which are the same."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.data import Dataset as TorchDataset

from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import KnowsContent, KnowsPath
from genzoo.core.errors import DataError
from genzoo.core.reading import shown
from genzoo.data.image_decode import EXTENSIONS, FORMATS, ORIENTATION
from genzoo.data.loader_workers import one_pass
from genzoo.data.sample_stream import one_line

if TYPE_CHECKING:
    from genzoo.core.types import Dataset

SIDE = 16  # of the thumbnails by which pictures are compared
_AT_ONCE = 8  # items on their way between two processes
_FLAT = 0.02  # of [-1, 1]: a picture that varies less has no thumbnail


@dataclass(frozen=True)
class Look:
    """What one item is like.

    error: "file: reason" when it cannot be read.   size: width and height of the picture in its file,
    upright. content: a hash of its file.   thumbnail: SIDE x SIDE bits, where the picture is brighter than
    its mean; None of a flat one.   caption: whether it has one; None for data without captions.
    """

    error: str | None = None
    size: tuple[int, int] | None = None
    content: bytes | None = None
    thumbnail: bytes | None = None
    caption: bool | None = None


def look_at(dataset: Dataset, index: int, *, closely: bool = True) -> Look:
    """Read an item to its last byte.   closely: and everything of `Look` beside its error."""
    try:
        item = dataset.fetch(index)
        if not closely:
            return Look()
        content = able(dataset, KnowsContent)
        data = b"" if content is None else content.content(index)
    except DataError as error:
        return Look(error=one_line(error))
    caption = item.get("captions")
    return Look(
        size=_size(data) if item_name(dataset, index).lower().endswith(EXTENSIONS) else None,
        content=hashlib.blake2b(data, digest_size=16).digest() if data else None,
        thumbnail=_thumbnail(item.get("pixels")),
        caption=None if caption is None else bool(str(caption).strip()),
    )


def inspect(
    dataset: Dataset,
    indices: Sequence[int] | None = None,
    *,
    num_workers: int = 0,
    seconds: float | None = None,
    closely: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, Look]]:
    """Items with their numbers, in order; all of them when `indices` are left out.

    num_workers: processes that read them.   seconds: begin no further item after so long.
    """
    order = range(len(dataset)) if indices is None else indices
    started, done = time.monotonic(), 0
    groups = [list(order[start : start + _AT_ONCE]) for start in range(0, len(order), _AT_ONCE)]
    for looks in one_pass(_Looks(dataset, closely), num_workers, batch_sampler=groups, collate_fn=list):
        for look in looks:
            yield order[done], look
            done += 1
            if progress is not None:
                progress(done, len(order))
        if seconds is not None and time.monotonic() - started > seconds:
            return


def evenly(total: int, num: int) -> list[int]:
    """`num` indices below `total` at even steps; all of them when there are no more."""
    return list(range(total)) if num >= total else [index * total // num for index in range(num)]


def item_name(dataset: Dataset, index: int) -> str:
    """The file of an item, safe to print; its number where it is none."""
    known = able(dataset, KnowsPath)
    return f"item {index}" if known is None else shown(PurePath(known.path(index)))


class _Looks(TorchDataset):
    def __init__(self, dataset: Dataset, closely: bool) -> None:
        self.dataset, self.closely = dataset, closely

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Look:
        return look_at(self.dataset, index, closely=self.closely)


def _size(data: bytes) -> tuple[int, int] | None:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else image.size
    except Exception:  # damaged EXIF: the decoder of training judged the picture already
        return None


def _thumbnail(pixels: Any) -> bytes | None:
    """Of (c, h, w) in [-1, 1], or of the middle frame of a clip."""
    if not isinstance(pixels, torch.Tensor) or pixels.ndim not in (3, 4):
        return None
    picture = pixels[len(pixels) // 2] if pixels.ndim == 4 else pixels
    small = adaptive_avg_pool2d(picture.float().mean(0, keepdim=True), SIDE).numpy()
    if float(small.std()) < _FLAT:
        return None
    return np.packbits(small > small.mean()).tobytes()

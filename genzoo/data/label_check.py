"""Look at all the data before a run: every file is decoded in full, every label compared with the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from genzoo.core.contracts import labels_of
from genzoo.core.errors import DataError
from genzoo.data.image_folder import ImageFolder
from genzoo.data.sample_stream import one_line


@dataclass(frozen=True)
class DataReport:
    """total: pictures found.   bad: "file: reason" of unreadable ones.   ignored: other files."""

    total: int
    bad: list[str]
    ignored: list[str]
    class_names: list[str] | None


def check_images(
    root: str | Path,
    *,
    num_workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> DataReport:
    """Decode every picture of a folder to its last byte and name those that fail.

    options: those of ImageFolder. progress(done, total) is called after each picture.
    """
    images = ImageFolder(root, **options)
    loader: DataLoader[str | None] = DataLoader(_Errors(images), batch_size=None, num_workers=num_workers)
    bad: list[str] = []
    for done, error in enumerate(loader, 1):
        bad += [error] if error else []
        if progress is not None:
            progress(done, len(images))
    return DataReport(len(images), bad, images.listing.ignored, images.class_names)


class _Errors(TorchDataset):
    def __init__(self, images: ImageFolder) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> str | None:
        try:
            self.images.fetch(index)
        except DataError as error:
            return one_line(error)
        return None


def check_labels(dataset: Any, num_classes: int | None) -> None:
    """Raise DataError when the labels do not fit a model of `num_classes` (None or 0: unconditional)."""
    if not num_classes:
        return
    if dataset.num_classes is None:
        raise DataError(
            f"the model has {num_classes} classes, but the data have no labels",
            fix="give each class its folder, or train without classes: model.num_classes=0",
        )
    labels = labels_of(dataset)
    highest = dataset.num_classes - 1 if labels is None else int(labels.max())
    lowest = 0 if labels is None else int(labels.min())
    if lowest < 0 or highest >= num_classes:
        raise DataError(
            f"the data have labels {lowest} to {highest}, but the model has {num_classes} classes",
            fix=f"set model.num_classes={dataset.num_classes}, or auto",
        )

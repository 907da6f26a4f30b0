"""Some items of a data set in one picture, as training would see them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import DataError, UsageError
from genzoo.data.inspection import evenly
from genzoo.data.own_outputs import is_overview
from genzoo.pictures.animation import contact_sheet
from genzoo.pictures.grid import make_grid
from genzoo.pictures.pixels import to_uint8

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import Dataset

SHOWN = 16


def require_sheet(path: str | Path) -> Path:
    """A PNG that may be written: absent, or an earlier sheet. Raises UsageError."""
    path = Path(path)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise UsageError(f"--sheet is {path}", fix="name a PNG file, such as sheet.png")
    if path.exists() and not is_overview(path):
        raise UsageError(f"{path} exists already, and is no sheet of genzoo", fix="name another file")
    return path


def save_data_sheet(dataset: Dataset, path: str | Path) -> Path:
    """Items from all over a data set, cropped and scaled, unaugmented; of clips each a strip of its frames.

    What cannot be read is not shown. Raises DataError when that is all of it.
    """
    shown: list[Tensor] = []
    for index in evenly(len(dataset), SHOWN):
        try:
            shown.append(dataset.fetch(index)["pixels"])
        except DataError:
            continue
    if not shown:
        raise DataError("not one of the items could be read", where=str(path))
    images = to_uint8(torch.stack(shown))
    return (contact_sheet(images) if images.ndim == 5 else make_grid(images)).save(path)

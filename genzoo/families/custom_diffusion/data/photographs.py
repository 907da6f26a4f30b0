"""Photographs of a concept, looked at before anything is trained: enough, readable, different, large
enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.core.reading import shown
from genzoo.data.image_decode import load_image
from genzoo.data.transforms import to_tensor
from genzoo.families.custom_diffusion.data.pictures import folder_pictures
from genzoo.pictures.grid import Grid, make_sheet
from genzoo.pictures.pixels import nearest_levels

ENOUGH, USUAL = 3, 5
# thumbnails nearer than this, root mean square in [-1, 1], are one picture saved twice
THUMBNAIL, SAME = 16, 0.02


@dataclass(frozen=True)
class Photographs:
    """paths: those that are used.   notes: what somebody should know.   sheet: as training will see them."""

    paths: list[Path]
    notes: list[str]
    sheet: Grid


def look_at(folder: str | Path, size: int) -> Photographs:
    """The photographs of a folder for training at `size` pixels: turned as their camera says, cut to the
    middle.

    Copies of a picture are left out and named. Raises DataError for a file that cannot be read, for pictures
    less than half as large as `size`, for a single picture, and for fewer than three.
    """
    found = folder_pictures(Path(folder).expanduser())
    paths = [found.path(index) for index in range(len(found))]
    images = [load_image(path) for path in paths]
    tiny = [path.name for path, image in zip(paths, images, strict=True) if 2 * min(image.size) < size]
    if tiny:
        raise DataError(
            f"{', '.join(tiny[:3])}: too small to learn from",
            where=shown(folder),
            why=f"training looks at {size} x {size} pixels, and these have less than half along a side",
            fix="larger photographs, or leave these out",
        )
    kept, copies = _different(paths, images)
    if copies and len(kept) == 1:
        raise DataError(
            f"the {len(paths)} photographs are one picture",
            where=shown(folder),
            fix=f"{ENOUGH} to {USUAL} different ones of the same thing",
        )
    if len(kept) < ENOUGH:
        raise DataError(
            f"there are {len(kept)} different photographs, and {ENOUGH} are needed",
            where=shown(folder),
            why="; ".join(copies) or None,
            fix=f"{USUAL} or more from different sides and places",
        )
    notes = list(copies)
    if len(kept) < USUAL:
        notes.append(f"{len(kept)} photographs are few: {USUAL} or more teach better")
    small = [path.name for path, image in zip(paths, images, strict=True) if min(image.size) < size]
    if small:
        notes.append(f"smaller than {size} pixels and enlarged: {', '.join(small[:5])}")
    squares = [_square(images[index], size) for index in kept]
    rows = torch.stack([nearest_levels(square).byte() for square in squares])
    sheet = make_sheet([("as training sees them: upright, the middle square", rows)], min_cell=96)
    return Photographs([paths[index] for index in kept], notes, sheet)


def _different(paths: list[Path], images: list[Image.Image]) -> tuple[list[int], list[str]]:
    """Places of pictures that differ from all before them, and a line for each that does not."""
    kept: list[int] = []
    notes = []
    small = [_square(image, THUMBNAIL) for image in images]
    for index, thumbnail in enumerate(small):
        twin = next((k for k in kept if float((small[k] - thumbnail).square().mean()) < SAME**2), None)
        if twin is None:
            kept.append(index)
        else:
            notes.append(f"{paths[index].name} is {paths[twin].name} again, and is left out")
    return kept, notes


def _square(image: Image.Image, size: int) -> Tensor:
    """(3, s, s) in [-1, 1] of the middle square."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return to_tensor(square.resize((size, size), Image.Resampling.BICUBIC))

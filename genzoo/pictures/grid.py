"""Many pictures in one: grids, and sheets of labelled rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from einops import rearrange

from genzoo.core.errors import ShapeError, UsageError
from genzoo.core.files import write_file
from genzoo.pictures.pixels import png, to_pil

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo
    from torch import Tensor

MIN_CELL = 32  # pictures smaller than this are enlarged, pixel by pixel, to be seen at all
CAPTION, CAPTIONED_CELL = 12, 64  # the height of a caption, and the least side of a picture below one
OVERVIEW = "genzoo:overview"


@dataclass(frozen=True)
class Grid:
    """A picture of many samples; a notebook shows it, `save` writes it."""

    image: Image

    def save(self, path: str | Path) -> Path:
        """Write a PNG in one step: the file is complete or absent."""
        return write_file(path, self._repr_png_())

    def _repr_png_(self) -> bytes:
        return png(self.image, pnginfo=overview_mark())


def overview_mark() -> PngInfo:
    """What a PNG that shows many pictures says of itself: no data set takes it for one of its own."""
    from PIL.PngImagePlugin import PngInfo

    mark = PngInfo()
    mark.add_text(OVERVIEW, "1")
    return mark


def make_grid(
    images: Tensor,
    *,
    columns: int | None = None,
    gap: int = 2,
    min_cell: int = MIN_CELL,
    captions: Sequence[str] | None = None,
) -> Grid:
    """Pictures side by side on white.

    images: (n, c, h, w) uint8 with c = 1 or 3.   gap: white pixels around each.   min_cell: smaller pictures
    are enlarged.   captions: a text above each picture, cut off at its width.
    """
    if images.ndim != 4 or not len(images) or images.shape[1] not in (1, 3):
        raise ShapeError(f"a grid needs pictures (n, 1 or 3, h, w), got {tuple(images.shape)}")
    if columns is not None and columns < 1:
        raise UsageError(f"columns is {columns}; a grid has at least one")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    least = min_cell if captions is None else max(min_cell, CAPTIONED_CELL)
    zoom = max(1, least // min(images.shape[-2:]))
    cells = images.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    above = gap if captions is None else gap + CAPTION
    cells = torch.nn.functional.pad(cells, (gap, gap, above, gap), value=255)
    blank = torch.full((rows * columns - len(cells), *cells.shape[1:]), 255, dtype=torch.uint8)
    sheet = rearrange(torch.cat([cells, blank]), "(r s) c h w -> c (r h) (s w)", s=columns)
    picture = to_pil(sheet)
    return Grid(picture if captions is None else _captioned(picture, captions, columns, cells.shape[-2:]))


def _captioned(picture: Image, captions: Sequence[str], columns: int, cell: Sequence[int]) -> Image:
    """Texts at the upper left of cells of (height, width)."""
    from PIL import ImageDraw

    height, width = cell
    picture = picture.convert("RGB")
    pen = ImageDraw.Draw(picture)
    for place, text in enumerate(captions):
        while text and pen.textlength(text) > width - 4:
            text = text[:-2] + "." if len(text) > 2 else ""
        pen.text((place % columns * width + 2, place // columns * height), text, fill="black")
    return picture


def make_sheet(rows: Sequence[tuple[str, Tensor]], *, min_cell: int = MIN_CELL) -> Grid:
    """Rows of pictures, each below its label; rows may differ in length.   rows: (n, 3, h, w) uint8."""
    from PIL import Image, ImageDraw

    margin = 14
    strips = [
        make_grid(pictures, columns=len(pictures), gap=1, min_cell=min_cell).image for _, pictures in rows
    ]
    width, height = max(strip.width for strip in strips), sum(strip.height + margin for strip in strips)
    sheet = Image.new("RGB", (width, height), "white")
    pen, top = ImageDraw.Draw(sheet), 0
    for (label, _), strip in zip(rows, strips, strict=True):
        pen.text((2, top), label, fill="black")
        sheet.paste(strip, (0, top + margin - 2))
        top += strip.height + margin
    return Grid(sheet)

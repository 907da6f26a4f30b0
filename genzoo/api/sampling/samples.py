"""What sampling returns: pictures that show themselves in a notebook and save themselves to a folder."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange

from genzoo.core.errors import ShapeError, UsageError
from genzoo.core.files import write_file
from genzoo.data.own_outputs import overview_mark

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo
    from torch import Tensor

    from genzoo.api.sampling.clips import Animation

MIN_CELL = 32  # pictures smaller than this are enlarged in a grid, pixel by pixel, to be seen at all


@dataclass(frozen=True)
class Grid:
    """A picture of many samples; a notebook shows it, `save` writes it."""

    image: Image

    def save(self, path: str | Path) -> Path:
        """Write a PNG in one step: the file is complete or absent."""
        return write_file(path, self._repr_png_())

    def _repr_png_(self) -> bytes:
        return png(self.image, pnginfo=overview_mark())


@dataclass(frozen=True)
class Samples:
    """pixels: (n, c, h, w), or clips (n, f, c, h, w), float in [-1, 1], on the CPU.

    conditions: what each was conditioned on.

    settings: seed, checkpoint, sampler and the rest of what it takes to make the same samples again.
    """

    pixels: Tensor
    conditions: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def images(self) -> Tensor:
        """(n, c, h, w) or (n, f, c, h, w) uint8."""
        return to_uint8(self.pixels)

    def grid(self, *, columns: int | None = None) -> Grid:
        """All samples in one picture, row by row; about square when `columns` is left out.

        Clips become strips of frames, one in a row when `columns` is left out.
        """
        if self.pixels.ndim == 5:
            from genzoo.api.sampling.clips import contact_sheet

            return contact_sheet(self.images, columns=columns)
        return make_grid(self.images, columns=columns)

    def animation(self, *, columns: int | None = None, fps: float = 8.0) -> Animation:
        """All clips playing side by side; its `save` writes .gif or .mp4. Raises ShapeError for images."""
        from genzoo.api.sampling.clips import make_animation

        return make_animation(self.images, columns=columns, fps=fps)

    def save(self, folder: str | Path) -> Path:
        """Write 000000.png and so on, grid.png and samples.json.

        A clip is a folder of frames, 000000/000.png and so on, and grid.gif shows all.
        """
        from genzoo.api.sampling.folder import save_samples

        return save_samples(self, Path(folder))

    def _repr_png_(self) -> bytes:
        return self.grid()._repr_png_()

    def _repr_html_(self) -> str | None:
        return self.animation()._repr_html_() if self.pixels.ndim == 5 else None


def to_uint8(pixels: Tensor) -> Tensor:
    """[-1, 1] to 0..255 as the DiT sampler rounds: clamp(127.5 x + 128, 0, 255)."""
    return (pixels.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def make_grid(images: Tensor, *, columns: int | None = None, gap: int = 2) -> Grid:
    """Pictures side by side on white.

    images: (n, c, h, w) uint8 with c = 1 or 3.   gap: white pixels between them.
    """
    if images.ndim != 4 or not len(images) or images.shape[1] not in (1, 3):
        raise ShapeError(f"a grid needs pictures (n, 1 or 3, h, w), got {tuple(images.shape)}")
    if columns is not None and columns < 1:
        raise UsageError(f"columns is {columns}; a grid has at least one")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    zoom = max(1, MIN_CELL // min(images.shape[-2:]))
    cells = images.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    cells = torch.nn.functional.pad(cells, (gap, gap, gap, gap), value=255)
    blank = torch.full((rows * columns - len(cells), *cells.shape[1:]), 255, dtype=torch.uint8)
    sheet = rearrange(torch.cat([cells, blank]), "(r s) c h w -> c (r h) (s w)", s=columns)
    return Grid(to_pil(sheet))


def to_pil(image: Tensor) -> Image:
    """(c, h, w) uint8 with c = 1 or 3 to a PIL picture."""
    from PIL import Image

    array = rearrange(image, "c h w -> h w c").contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def png(image: Image, *, pnginfo: PngInfo | None = None) -> bytes:
    """The picture as PNG; the same bytes for the same pixels."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=pnginfo)
    return buffer.getvalue()

"""What sampling returns: pictures that show themselves in a notebook and save themselves to a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.api.sampling.beside import grid_beside
from genzoo.api.sampling.class_names import captions_of
from genzoo.api.sampling.folder import save_samples
from genzoo.pictures.animation import FPS, Animation, contact_sheet, make_animation
from genzoo.pictures.grid import Grid, make_grid
from genzoo.pictures.pixels import to_uint8

if TYPE_CHECKING:
    from torch import Tensor


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

    def __repr__(self) -> str:
        what = "clips" if self.pixels.ndim == 5 else "pictures"
        return f"Samples({len(self)} {what} of {' x '.join(map(str, self.pixels.shape[1:]))})"

    def __getitem__(self, index: int) -> Grid:
        """One picture, or the frames of one clip; it shows itself in a notebook, and has `save(path)`."""
        one = self.images[range(len(self))[index]][None]
        return contact_sheet(one) if one.ndim == 5 else make_grid(one)

    @property
    def images(self) -> Tensor:
        """(n, c, h, w) or (n, f, c, h, w) uint8."""
        return to_uint8(self.pixels)

    def grid(self, *, columns: int | None = None) -> Grid:
        """All samples in one picture, row by row; about square when `columns` is left out.

        Controls come first. Clips become strips of frames, one in a row when `columns` is left out.
        """
        if self.pixels.ndim == 5:
            return contact_sheet(self.images, columns=columns)
        captions = captions_of(self.conditions, self.settings.get("classes", {}))
        return grid_beside(self.images, self.conditions, columns=columns, captions=captions)

    def animation(self, *, columns: int | None = None, fps: float = FPS) -> Animation:
        """All clips playing side by side; its `save` writes .gif or .mp4. Raises ShapeError for images."""
        return make_animation(self.images, columns=columns, fps=fps)

    def save(self, folder: str | Path) -> Path:
        """Write 000000.png and so on, grid.png and samples.json.

        A clip is a folder of frames, 000000/000.png and so on, and grid.gif shows all.
        """
        return save_samples(Path(folder), self.images, self.conditions, self.settings)

    def _repr_png_(self) -> bytes:
        return self.grid()._repr_png_()

    def _repr_html_(self) -> str | None:
        return self.animation()._repr_html_() if self.pixels.ndim == 5 else None

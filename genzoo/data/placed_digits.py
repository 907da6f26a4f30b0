"""Placed digits: one handwritten digit somewhere on a black canvas, the stills of moving digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from genzoo.data.indexed import Indexed
from genzoo.data.moving_digits import MovingDigits
from genzoo.data.toys import first_of


class PlacedDigits(Indexed):
    """fetch gives {"pixels": (1, s, s) float32 in [-1, 1], "class_labels": int64 ()}.

    image_size: of the canvas, 9 to 64.   grid: places are multiples of it, in pixels.   places_per_digit:
    images of each of the 1,797 digits.   split: of the digits, "train", "test" or "all". A model of these
    images is a warm start for `moving_digits`.
    """

    augments = False
    num_classes: int | None = 10

    def __init__(
        self, *, image_size: int = 16, grid: int = 1, places_per_digit: int = 4, split: str = "all"
    ) -> None:
        self._clips = MovingDigits(
            image_size=image_size,
            num_frames=1,
            max_speed=grid,
            grid=grid,
            clips_per_digit=places_per_digit,
            split=split,
        )
        self.class_names = self._clips.class_names
        self.sample_shape: tuple[int, ...] = self._clips.sample_shape[1:]
        self.fingerprint = self._clips.fingerprint

    def __len__(self) -> int:
        return len(self._clips)

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """One image; there is no augmentation, so the generator is not used."""
        return first_of(self.fetch_many([index], [generator]))

    def fetch_many(self, indices: Sequence[int], generators: Sequence[Any]) -> dict[str, Any]:
        """Several images at once, already stacked: (b, 1, s, s) and (b,)."""
        batch = self._clips.fetch_many(indices, generators)
        return batch | {"pixels": batch["pixels"][:, 0]}

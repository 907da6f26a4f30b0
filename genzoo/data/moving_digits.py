"""Moving digits: clips of one handwritten digit that crosses a black canvas and bounces off its borders."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.core.seeds import generator_for
from genzoo.data.digits import SPLITS, load_digits, rows_of_split
from genzoo.data.indexed import Indexed
from genzoo.data.motion import bouncing_paths, check_grid, draw_stills, paste
from genzoo.data.toys import check_at_least, check_choices, first_of

DIGIT = 8


class MovingDigits(Indexed):
    """fetch gives {"pixels": (f, 1, s, s) float32 in [-1, 1], "class_labels": int64 ()}.

    Made from the embedded digits, the same everywhere: clip i depends on its digit and its number alone, in
    every split.   image_size: of the canvas, 9 to 64.   num_frames: f.   max_speed: pixels a frame along each
    axis; a clip draws 1 to max_speed for each.   grid: places and speeds are multiples of it, in pixels, so
    that a model's patches cut digits in few ways.   clips_per_digit: clips of each of the 1,797 digits.
    split: of the digits, "train", "test" or "all".   use_image_num: stills s beside each clip, single frames
    of other clips: "image_pixels" (s, 1, s, s) and "image_labels" (s,), drawn anew each time.
    """

    num_classes: int | None = 10

    def __init__(
        self,
        *,
        image_size: int = 16,
        num_frames: int = 8,
        max_speed: int = 2,
        grid: int = 1,
        clips_per_digit: int = 4,
        split: str = "all",
        use_image_num: int = 0,
    ) -> None:
        _check(image_size, num_frames, max_speed, clips_per_digit, split, use_image_num)
        check_grid("moving_digits", grid, way=image_size - DIGIT, max_speed=max_speed)
        self.class_names: list[str] | None = [str(digit) for digit in range(10)]
        self.sample_shape: tuple[int, ...] = (num_frames, 1, image_size, image_size)
        self.use_image_num, self.augments = use_image_num, use_image_num > 0
        images, labels = load_digits()
        rows = rows_of_split(len(labels), split)
        self.digits, self.labels = images[rows, 0], labels[rows].repeat(clips_per_digit)
        way = {"num_frames": num_frames, "span": (image_size - DIGIT) // grid, "max_speed": max_speed // grid}
        seeds = (("moving_digits", number, max_speed // grid) for number in range(clips_per_digit))
        paths = [bouncing_paths(len(labels), **way, generator=generator_for(*seed)) for seed in seeds]
        self.corners = torch.cat([grid * path[rows] for path in paths])
        settings = f"moving_digits|{self.sample_shape}|{max_speed}|{clips_per_digit}|{split}|{use_image_num}"
        content = images.numpy().tobytes() + self.corners.numpy().tobytes()
        self.fingerprint = hashlib.sha256(settings.encode() + content).hexdigest()[:32]

    def __len__(self) -> int:
        return len(self.corners)

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """One clip; its stills come from the generator, or without one from the index."""
        return first_of(self.fetch_many([index], [generator]))

    def fetch_many(self, indices: Sequence[int], generators: Sequence[Any]) -> dict[str, Any]:
        """Several clips at once, already stacked: (b, f, 1, s, s) and (b,)."""
        rows = torch.as_tensor(indices)
        batch = {"pixels": self._draw(rows), "class_labels": self.labels[rows]}
        if self.use_image_num:
            seeds = [("moving_digits stills", index) for index in indices]
            batch |= draw_stills(self, self._draw, seeds, generators)
        return batch

    def _draw(self, rows: Tensor) -> Tensor:
        """The clips of these numbers: (b, f, 1, s, s)."""
        sprites = self.digits[rows % len(self.digits), None]
        return paste(sprites, self.corners[rows], self.sample_shape[-1], background=-1.0)


def _check(
    image_size: int, num_frames: int, max_speed: int, clips_per_digit: int, split: str, use_image_num: int
) -> None:
    if not DIGIT < image_size <= 64:
        raise DataError(f"moving_digits: image_size {image_size} is not between {DIGIT + 1} and 64")
    check_at_least("moving_digits", 1, num_frames=num_frames, clips_per_digit=clips_per_digit)
    check_at_least("moving_digits", 0, use_image_num=use_image_num)
    if not 1 <= max_speed <= image_size - DIGIT:
        raise DataError(f"moving_digits: max_speed {max_speed} is not between 1 and {image_size - DIGIT}")
    check_choices("moving_digits", "split", [split], SPLITS)

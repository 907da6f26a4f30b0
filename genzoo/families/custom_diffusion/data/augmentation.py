"""Size augmentation of concept images: shrink or zoom, say so in the prompt, and mask what is not picture.

Rules, by name: "official" and "official_crop" (the two official trainers, the second crops the picture square
first), "diffusers" (the example script) and "paper" (sizes and words as the paper has them). Randomness comes
in as a `Draws`, so that a recorded sequence of draws gives the recorded picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genzoo.core.errors import UsageError

SMALL_WORDS = ("a far away ", "very small ")
LARGE_WORDS = ("zoomed in ", "close up ")
PAPER_SMALL, PAPER_LARGE = (", very small", ", far away"), (", zoomed in", ", close up")
RULES = ("official", "official_crop", "diffusers", "paper")
LATENT_FACTOR = 8


class Draws(Protocol):
    """The random decisions, in the order in which they are asked for."""

    def randint(self, low: int, high: int) -> int:
        """An integer in [low, high)."""

    def uniform(self) -> float:
        """A number in [0, 1)."""

    def choice(self, options: Sequence[str]) -> str:
        """One of the options."""


@dataclass(frozen=True)
class GeneratorDraws:
    """Draws from a torch generator."""

    generator: torch.Generator

    def randint(self, low: int, high: int) -> int:
        """An integer in [low, high)."""
        return int(torch.randint(low, high, (), generator=self.generator))

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def choice(self, options: Sequence[str]) -> str:
        """One of the options."""
        return options[self.randint(0, len(options))]


Box = tuple[int, int, int, int]
"""First row, row past the last, first column, column past the last of a pasted picture, in pixels."""


class Placement(NamedTuple):
    """A picture resized to r x r, its corner at (top, left) of the canvas; negative when the canvas crops it.

    masked: the loss counts inside the picture only, less a border of one latent pixel.   suffix: the paper's
    words come behind the prompt.
    """

    r: int
    top: int
    left: int
    prefix: str
    masked: bool
    suffix: str = ""

    @property
    def box(self) -> Box | None:
        """Where the picture lies, or None when the loss counts everywhere."""
        return (self.top, self.top + self.r, self.left, self.left + self.r) if self.masked else None


class Augmented(NamedTuple):
    """pixels: (3, s, s) in [-1, 1], 0 where there is no picture.   mask: (s / 8, s / 8) of 0 and 1.

    changed: whether the size was, so that other draws give other pixels.
    """

    pixels: Tensor
    mask: Tensor
    prompt: str
    box: Box | None
    changed: bool


def augment(
    image: Image.Image,
    prompt: str,
    draws: Draws,
    *,
    size: int = 512,
    rule: str = "official",
    enabled: bool = True,
) -> Augmented:
    """One training picture of a concept. enabled: False leaves the size alone, as each rule's code does."""
    if rule not in RULES:
        raise UsageError(f"there is no augmentation rule {rule!r}", fix=f"one of {', '.join(RULES)}")
    if rule == "diffusers":
        place = diffusers_placement(size, draws, enabled=enabled)
    elif rule == "paper":
        place = paper_placement(size, draws) if enabled else Placement(size, 0, 0, "", False)
    else:
        place = official_placement(size, draws) if enabled else Placement(size, 0, 0, "", False)
    image = image.convert("RGB")
    if rule == "official_crop":
        image = _square(image)
    resampling = Image.Resampling.BICUBIC if rule == "official_crop" else Image.Resampling.BILINEAR
    resized = np.asarray(image.resize((place.r, place.r), resampling), dtype=np.float32) / 127.5 - 1
    canvas = np.zeros((size, size, 3), dtype=np.float32)
    # the part of the picture that the canvas shows, and where
    top, left, skip_top, skip_left = (
        max(place.top, 0),
        max(place.left, 0),
        max(-place.top, 0),
        max(-place.left, 0),
    )
    shown = resized[skip_top : skip_top + size, skip_left : skip_left + size]
    canvas[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    pixels = torch.from_numpy(canvas).permute(2, 0, 1).contiguous()
    changed = place[:3] != (size, 0, 0)
    return Augmented(
        pixels, latent_mask(size, place.box), place.prefix + prompt + place.suffix, place.box, changed
    )


def official_placement(size: int, draws: Draws) -> Placement:
    """The official rule: a third zooms to 1.2-1.4, the rest shrinks to 1/3-1, of which below 0.6 is pasted.

    Pasted pictures are centred on a drawn point, and the mask loses one latent pixel on every side.
    """
    zoom = draws.randint(0, 3) == 2
    r = draws.randint(int(1.2 * size), int(1.4 * size)) if zoom else draws.randint(size // 3, size + 1)
    r += r % 2
    half = r // 2
    if r < 0.6 * size:
        prefix = draws.choice(SMALL_WORDS)
        row, column = (draws.randint(half, size - half + 1) for _ in range(2))
        return Placement(r, row - half, column - half, prefix, True)
    if r > size:
        prefix = draws.choice(LARGE_WORDS)
        row, column = (draws.randint(size // 2, r - size // 2 + 1) for _ in range(2))
        return Placement(r, size // 2 - row, size // 2 - column, prefix, False)
    return Placement(size, 0, 0, "", False)


def diffusers_placement(size: int, draws: Draws, *, enabled: bool = True) -> Placement:
    """The example script's rule: two thirds paste at 1/3-1, the rest crops at 1.2-1.4; words come last.

    Not enabled, it still draws a corner, and its mask still loses one latent pixel on every side.
    """
    r = size
    if enabled:
        shrink = draws.uniform() < 0.66
        r = draws.randint(size // 3, size + 1) if shrink else draws.randint(int(1.2 * size), int(1.4 * size))
    top, left = (draws.randint(0, abs(size - r) + 1) for _ in range(2))
    prefix = ""
    if enabled and r < 0.6 * size:
        prefix = draws.choice(SMALL_WORDS)
    elif enabled and r > size:
        prefix = draws.choice(LARGE_WORDS)
    if r > size:
        return Placement(r, -top, -left, prefix, False)
    return Placement(r, top, left, prefix, True)


def paper_placement(size: int, draws: Draws) -> Placement:
    """Section 3.2 as it is written: 0.4 to 1.4 times, words appended, loss on the valid region alone.

    It does not say from which size on: below 0.6 and above 1, as in both codes. Places are drawn evenly.
    """
    r = draws.randint(round(0.4 * size), round(1.4 * size) + 1)
    top, left = (draws.randint(0, abs(size - r) + 1) for _ in range(2))
    if r > size:
        return Placement(r, -top, -left, "", False, draws.choice(PAPER_LARGE))
    suffix = draws.choice(PAPER_SMALL) if r < 0.6 * size else ""
    return Placement(r, top, left, "", r < size, suffix)


def latent_mask(size: int, box: Box | None, *, factor: int = LATENT_FACTOR) -> Tensor:
    """(s / f, s / f) float32: 1 inside the box less one latent pixel on every side, or 1 everywhere."""
    side = size // factor
    if box is None:
        return torch.ones(side, side)
    top, bottom, left, right = (edge // factor for edge in box)
    mask = torch.zeros(side, side)
    mask[top + 1 : max(bottom - 1, top + 1), left + 1 : max(right - 1, left + 1)] = 1
    return mask


def _square(image: Image.Image) -> Image.Image:
    """The centre square."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))

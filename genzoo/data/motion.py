"""Sprites that move over a canvas: paths that bounce or go straight, and the frames they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.core.seeds import generator_for


def check_grid(data_set: str, grid: int, *, way: int, max_speed: int) -> None:
    """That places and speeds can be multiples of `grid` pixels. Raises DataError where they cannot."""
    if grid < 1 or way % grid or max_speed % grid:
        raise DataError(
            f"{data_set}: grid {grid} does not divide the way of {way} pixels and max_speed {max_speed}"
        )


def bouncing_paths(
    num: int, *, num_frames: int, span: int, max_speed: int, generator: torch.Generator
) -> Tensor:
    """Upper left corners (num, f, 2) that cross [0, span] and turn at its ends.

    Along each axis a path keeps a speed of 1 to max_speed pixels a frame.
    """
    # a place on the way there and back again, so that one draw gives start and direction
    start = torch.randint(2 * span, (num, 1, 2), generator=generator)
    speed = torch.randint(1, max_speed + 1, (num, 1, 2), generator=generator)
    way = (start + speed * torch.arange(num_frames)[:, None]) % (2 * span)
    return span - (span - way).abs()


def straight_paths(
    directions: Tensor, *, num_frames: int, span: int, max_speed: int, generator: torch.Generator
) -> Tensor:
    """Upper left corners (n, f, 2) that go one way and never leave [0, span].

    directions: (n, 2) of -1, 0 and 1, down and to the right.   A path keeps a speed of 1 to max_speed pixels
    a frame, where max_speed * (f - 1) is at most span.
    """
    num = len(directions)
    speed = torch.randint(1, max_speed + 1, (num, 1), generator=generator)
    way = directions * speed * (num_frames - 1)
    room = span + 1 - way.abs()
    start = (torch.rand(num, 2, generator=generator) * room).long() - way.clamp(max=0)
    return start[:, None] + (directions * speed)[:, None] * torch.arange(num_frames)[:, None]


def paste(sprites: Tensor, corners: Tensor, size: int, background: float) -> Tensor:
    """Clips of sprites on an empty canvas.

    sprites: (b, c, k, k).   corners: (b, f, 2) upper left, in [0, size - k].   Returns (b, f, c, size, size).
    """
    num, frames = corners.shape[:2]
    channels, side = sprites.shape[1:3]
    canvas = sprites.new_full((num, frames, size, size, channels), background)
    offset = torch.arange(side)
    y = corners[..., 0, None, None] + offset[:, None]
    x = corners[..., 1, None, None] + offset
    clip, frame = torch.arange(num)[:, None, None, None], torch.arange(frames)[:, None, None]
    canvas[clip, frame, y, x] = sprites.movedim(1, -1)[:, None].expand(-1, frames, -1, -1, -1)
    return canvas.movedim(-1, 2)


class ClipsWithStills(Protocol):
    """A data set of clips (f, c, s, s) with `use_image_num` stills beside each.   labels: (n,)."""

    sample_shape: tuple[int, ...]
    use_image_num: int

    @property
    def labels(self) -> Tensor | None: ...
    def __len__(self) -> int: ...


def draw_stills(
    clips: ClipsWithStills,
    draw: Callable[[Tensor], Tensor],
    seeds: Sequence[tuple[str, int]],
    generators: Sequence[torch.Generator | None],
) -> dict[str, Tensor]:
    """Single frames of clips for joint image-video training, beside each item of a batch.

    Returns "image_pixels" (b, num, c, s, s) and, with labels, "image_labels" (b, num).   draw: clips
    (b, f, c, s, s) by number.   seeds: in place of generators that are None, one for each item.
    """
    num, num_frames, labels = clips.use_image_num, clips.sample_shape[0], clips.labels
    pixels, rows = [], []
    for seed, given in zip(seeds, generators, strict=True):
        generator = generator_for(*seed) if given is None else given
        rows.append(torch.randint(len(clips), (num,), generator=generator))
        frames = torch.randint(num_frames, (num,), generator=generator)
        pixels.append(draw(rows[-1])[torch.arange(num), frames])
    stills = {"image_pixels": torch.stack(pixels)}
    return stills if labels is None else stills | {"image_labels": labels[torch.stack(rows)]}

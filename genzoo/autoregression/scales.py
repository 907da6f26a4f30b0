"""How token maps of growing size lie in one sequence, coarse to fine, each in raster order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor

Scale = int | Sequence[int]
"""A side, or (height, width)."""


def scale_sizes(patch_nums: Sequence[Scale]) -> list[tuple[int, int]]:
    """Height and width of every map.

    Raises ShapeError when there are none, one is empty, or one is smaller than the one before.
    """
    if not isinstance(patch_nums, Sequence):
        raise ShapeError(f"patch_nums is {patch_nums}; it lists the scales, such as [1, 2, 4]")
    wrong = [p for p in patch_nums if not _is_scale(p)]
    if wrong:
        raise ShapeError(f"patch_nums has {wrong[0]!r}; a scale is a side, or height and width")
    sizes = [(p, p) if isinstance(p, int) else (int(p[0]), int(p[1])) for p in patch_nums]
    if not sizes or min(min(size) for size in sizes) < 1:
        raise ShapeError(
            f"patch_nums is {list(patch_nums)}; it lists at least one scale, each of size 1 or more"
        )
    if any(after < before for pair in pairwise(sizes) for before, after in zip(*pair, strict=True)):
        raise ShapeError(
            f"patch_nums is {list(patch_nums)}; scales go from coarse to fine, none smaller than before"
        )
    return sizes


def _is_scale(scale: object) -> bool:
    sides = scale if isinstance(scale, Sequence) and not isinstance(scale, str) else (scale, scale)
    return len(sides) == 2 and all(isinstance(side, int) for side in sides)


def plain_scales(patch_nums: Sequence[Scale]) -> tuple[int | tuple[int, int], ...]:
    """The same scales in one spelling: a number where a map is square, else (height, width)."""
    return tuple(height if height == width else (height, width) for height, width in scale_sizes(patch_nums))


def stretched_scales(patch_nums: Sequence[int], size: tuple[int, int]) -> tuple[int | tuple[int, int], ...]:
    """Square scales as maps of another shape, the last of which is `size`.

    Each side is its share of the last one, rounded half up, and at least 1; the tokens of a scale stay about
    as many when size has as many as the last square.
    """
    last = patch_nums[-1]
    sides = [[max(1, (2 * p * side + last) // (2 * last)) for side in size] for p in patch_nums]
    return plain_scales(sides)


def scale_lengths(patch_nums: Sequence[Scale]) -> list[int]:
    """Tokens of every map."""
    return [height * width for height, width in scale_sizes(patch_nums)]


def scale_bounds(patch_nums: Sequence[Scale]) -> list[tuple[int, int]]:
    """Begin and end of every map in the sequence."""
    bounds, begin = [], 0
    for length in scale_lengths(patch_nums):
        bounds.append((begin, begin + length))
        begin += length
    return bounds


def scale_of_token(patch_nums: Sequence[Scale]) -> Tensor:
    """The scale that each token of the sequence belongs to: (l,) int64."""
    lengths = scale_lengths(patch_nums)
    return torch.cat([torch.full((length,), scale) for scale, length in enumerate(lengths)])


def block_causal_bias(patch_nums: Sequence[Scale]) -> Tensor:
    """What to add to attention scores, (l, l): 0 where the key's scale is no finer, else -inf.

    Tokens of one scale see each other, whatever their order.
    """
    scale = scale_of_token(patch_nums)
    visible = scale[:, None] >= scale[None, :]
    return torch.zeros(visible.shape).masked_fill(~visible, -torch.inf)


def split_scales(sequence: Tensor, patch_nums: Sequence[Scale]) -> list[Tensor]:
    """One part per scale.   sequence: (b, l, ...).   Raises ShapeError unless l is the sum of all lengths."""
    lengths = scale_lengths(patch_nums)
    if sequence.shape[1] != sum(lengths):
        raise ShapeError(
            f"the sequence has {sequence.shape[1]} tokens; scales {list(patch_nums)} have {sum(lengths)}"
        )
    return list(sequence.split(lengths, dim=1))

"""How token maps of growing size lie in one sequence, coarse to fine, each in raster order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import ShapeError
from genzoo.core.sizes import Size, scales_problem, sides

if TYPE_CHECKING:
    from torch import Tensor


def scale_sizes(patch_nums: Sequence[Size]) -> list[tuple[int, int]]:
    """Height and width of every map.

    Raises ShapeError when there are none, one is empty, or one is smaller than the one before.
    """
    if not isinstance(patch_nums, Sequence):
        raise ShapeError(f"patch_nums is {patch_nums}; it lists the scales, such as [1, 2, 4]")
    wrong = scales_problem(patch_nums)
    if wrong:
        raise ShapeError(f"patch_nums {wrong}")
    return [sides(scale) for scale in patch_nums]


def plain_scales(patch_nums: Sequence[Size]) -> tuple[int | tuple[int, int], ...]:
    """The same scales in one spelling: a number where a map is square, else (height, width)."""
    return tuple(height if height == width else (height, width) for height, width in scale_sizes(patch_nums))


def stretched_scales(patch_nums: Sequence[int], size: tuple[int, int]) -> tuple[int | tuple[int, int], ...]:
    """Square scales as maps of another shape, the last of which is `size`.

    Each side is its share of the last one, rounded half up, and at least 1; the tokens of a scale stay about
    as many when size has as many as the last square.
    """
    last = patch_nums[-1]
    stretched = [[max(1, (2 * p * side + last) // (2 * last)) for side in size] for p in patch_nums]
    return plain_scales(stretched)


def scale_lengths(patch_nums: Sequence[Size]) -> list[int]:
    """Tokens of every map."""
    return [height * width for height, width in scale_sizes(patch_nums)]


def scale_bounds(patch_nums: Sequence[Size]) -> list[tuple[int, int]]:
    """Begin and end of every map in the sequence."""
    bounds, begin = [], 0
    for length in scale_lengths(patch_nums):
        bounds.append((begin, begin + length))
        begin += length
    return bounds


def scale_of_token(patch_nums: Sequence[Size]) -> Tensor:
    """The scale that each token of the sequence belongs to: (l,) int64."""
    lengths = scale_lengths(patch_nums)
    return torch.cat([torch.full((length,), scale) for scale, length in enumerate(lengths)])


def block_causal_bias(patch_nums: Sequence[Size]) -> Tensor:
    """What to add to attention scores, (l, l): 0 where the key's scale is no finer, else -inf.

    Tokens of one scale see each other, whatever their order.
    """
    scale = scale_of_token(patch_nums)
    visible = scale[:, None] >= scale[None, :]
    return torch.zeros(visible.shape).masked_fill(~visible, -torch.inf)


def split_scales(sequence: Tensor, patch_nums: Sequence[Size]) -> list[Tensor]:
    """One part per scale.   sequence: (b, l, ...).   Raises ShapeError unless l is the sum of all lengths."""
    lengths = scale_lengths(patch_nums)
    if sequence.shape[1] != sum(lengths):
        raise ShapeError(
            f"the sequence has {sequence.shape[1]} tokens; scales {list(patch_nums)} have {sum(lengths)}"
        )
    return list(sequence.split(lengths, dim=1))

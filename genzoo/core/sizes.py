"""Sizes as recipes write them: one number, or height and width; scales, which are sizes that grow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from genzoo.core.errors import ShapeError

Size = int | Sequence[int]
"""The side of a square, or (height, width)."""

MUST = "must be one number, or height and width, 1 or more"


def sides(size: Size, name: str = "size") -> tuple[int, int]:
    """Height and width. Raises ShapeError for what is no size.   name: of the argument, in the message."""
    both = (size, size) if isinstance(size, int) else tuple(size)
    wrong = size_problem(size)
    if wrong or min(both) < 1:
        raise ShapeError(f"{name} {wrong or f'{MUST}, not {size!r}'}")
    return both[0], both[1]


def size_problem(value: Any) -> str | None:
    """What is wrong with a list that shall be height and width; None for any other value."""
    if not _is_list(value) or len(value) == 2:
        return None
    return f"{MUST}, not {list(value)!r}; write {_meant(value)}"


def shape_problem(value: Any) -> str | None:
    """What is wrong with a list that shall be the shape of one sample; None for any other value."""
    if not _is_list(value) or len(value) in (3, 4):
        return None
    return f"must be [channels, height, width], with frames before them in clips, not {list(value)!r}"


def scales_problem(value: Any) -> str | None:
    """What is wrong with a list that shall be sizes of maps, coarse to fine; None for any other value."""
    if not _is_list(value):
        return None
    if not value:
        return "is empty; give at least one scale, such as [1, 2, 4]"
    for scale in value:
        if not _is_scale(scale):
            meant = f"; write {_meant(scale)}" if _is_list(scale) and len(scale) == 1 else ""
            return f"has {scale!r}; a scale is a side, or height and width, of size 1 or more{meant}"
    for coarse, fine in pairwise(sides(scale) for scale in value):
        if fine[0] < coarse[0] or fine[1] < coarse[1]:
            return f"is {list(value)!r}; scales go from coarse to fine, none smaller than before"
    return None


def _is_scale(value: Any) -> bool:
    numbers = value if _is_list(value) else (value, value)
    return len(numbers) == 2 and all(isinstance(one, int) and one >= 1 for one in numbers)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _meant(value: Sequence[object]) -> str:
    return str(value[0]) if len(value) == 1 else "[HEIGHT, WIDTH]"

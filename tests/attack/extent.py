"""How much is tried, from GENZOO_ATTACK: "whole"; "2/3", the second of three parts that are the whole; or,
when it is not set, one case of every kind.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def parts(text: str) -> tuple[int, int]:
    """The number of a part, from 1, and how many there are."""
    number, _, count = ("1/1" if text == "whole" else text).partition("/")
    found = int(number), int(count)
    assert 1 <= found[0] <= found[1], f"GENZOO_ATTACK={text}: whole, or a part such as 2/3"
    return found


EXTENT = os.environ.get("GENZOO_ATTACK", "")
WHOLE = bool(EXTENT)


def tried(grid: Sequence[T], reduced: Sequence[T] = (), extent: str = EXTENT) -> Sequence[T]:
    """The cases of a grid: every k-th, from another first one in each of the k parts, or the reduced ones."""
    if not extent:
        return reduced
    number, count = parts(extent)
    return grid[number - 1 :: count]

"""Pictures that occur twice: the same bytes, or nearly the same thumbnail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from genzoo.data.inspection import SIDE, Look

NEARLY = (
    8  # bits of SIDE * SIDE in which thumbnails of one picture differ, after resizing or another compression
)
MOST = 20_000  # pictures that are compared with one another: the work grows with the square
_BLOCK = 512

Looks = Mapping[int, Look]


def equal_groups(looks: Looks) -> list[list[int]]:
    """Items whose files have the same bytes, two or more together."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, look in looks.items():
        if look.content is not None:
            groups[look.content].append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_pairs(looks: Looks, others: Looks | None = None) -> list[tuple[int, int]]:
    """Pairs of items that look alike though their bytes differ.

    others: of another data set, each of which is compared with each; left out, the items with one another,
    the lower number first.
    """
    rows, columns = _table(looks), _table(looks if others is None else others)
    against = looks if others is None else others
    found = []
    for first, second in _alike(rows[1], columns[1]):
        one, other = rows[0][first], columns[0][second]
        if (others is not None or one < other) and looks[one].content != against[other].content:
            found.append((one, other))
    return found


def equal_pairs(looks: Looks, others: Looks) -> list[tuple[int, int]]:
    """Pairs of items of two data sets whose files have the same bytes."""
    known: dict[bytes, list[int]] = defaultdict(list)
    for index, look in looks.items():
        if look.content is not None:
            known[look.content].append(index)
    return [
        (one, other)
        for other, look in others.items()
        if look.content is not None
        for one in known.get(look.content, ())
    ]


def _table(looks: Looks) -> tuple[list[int], np.ndarray]:
    """Items that have a thumbnail, and their bits as -1 and 1: (n, SIDE * SIDE) float32."""
    kept = [(index, look.thumbnail) for index, look in looks.items() if look.thumbnail is not None]
    packed = np.frombuffer(b"".join(bits for _, bits in kept), np.uint8).reshape(-1, SIDE * SIDE // 8)
    return [index for index, _ in kept], np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1


def _alike(rows: np.ndarray, columns: np.ndarray) -> Iterator[tuple[int, int]]:
    for start in range(0, len(rows), _BLOCK):
        product = rows[start : start + _BLOCK] @ columns.T  # bits that agree less those that differ
        for first, second in np.argwhere(product >= SIDE * SIDE - 2 * NEARLY):
            yield start + int(first), int(second)

"""What an edit needs of a base: rows of texts, and which projections see which of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Kept:
    """rows: (p, d).   weights: (p,), how often a row occurs.   captions, spans: of each caption the rows that
    are its own, (index into rows).   left_out: captions that name what is edited.
    """

    rows: Tensor
    weights: Tensor
    captions: list[str]
    spans: list[list[int]]
    left_out: list[str]


@dataclass(frozen=True)
class Group:
    """Projections that see the same rows.   rows_of: what stands before them, row by row; None is nothing."""

    names: tuple[str, ...]
    rows_of: Callable[[Tensor], Tensor] | None = None

    def __call__(self, rows: Tensor) -> Tensor:
        return rows if self.rows_of is None else self.rows_of(rows)


class Texts(Protocol):
    """Rows of texts, of either kind of base."""

    def groups(self, names: Sequence[str]) -> list[Group]:
        """Projections by the rows that they see."""

    def paired(self, texts: Sequence[str], which: str) -> list[Tensor]:
        """Rows (s, d) of each text that stand for each other."""

    def kept(self, captions: Sequence[str], sources: Sequence[str], explicit: Sequence[str] = ()) -> Kept:
        """What an edit holds on to."""

    def notes(self) -> list[str]:
        """What an edit of keys and values does not reach."""

"""Rows that a metric looks at, of the generated images and of the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genzoo.core.errors import DataError
from genzoo.data.inspection import evenly
from genzoo.evaluation.intervals.estimate import Estimate

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.evaluation.reference import Reference

Estimates = dict[str, Estimate]


def some(rows: Tensor, num: int | None) -> Tensor:
    """`num` of the rows at even steps, because files lie in order of class; all of them for None."""
    return rows if num is None else rows[evenly(len(rows), num)]


def rows_of(reference: Reference, output: str, name: str, num: int | None = None) -> Tensor:
    if output not in reference.rows:
        raise DataError(
            f"{name} needs reference images, and this reference has statistics only",
            fix="use a reference with images (arr_0, or a folder)",
        )
    return some(reference.rows[output], num)

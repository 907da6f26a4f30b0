"""Does a picture follow its control? Edge F1 with a pixel tolerance."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn.functional import max_pool2d

from genzoo.core.errors import DataError, ShapeError, UsageError
from genzoo.data.controls import canny_edges
from genzoo.pretrained.hed import load_hed

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.data.picture_sets import PictureSet

Extractor = Callable[["Tensor"], "Tensor"]
"""uint8 (b, 3, h, w) -> edges (b, h, w), bool or in [0, 1]."""


class EdgeAgreement(NamedTuple):
    """precision: share of the picture's edges in the control.   recall: the reverse.   f1: harmonic mean."""

    precision: float
    recall: float
    f1: float


def edge_agreement(
    found: Tensor, control: Tensor, *, tolerance: int = 2, threshold: float = 0.5
) -> EdgeAgreement:
    """Edges of pictures against their controls, counted over the whole batch.   found, control: (b, h, w).

    An edge pixel agrees when the other map has one within `tolerance` pixels (a square). Two empty maps agree
    fully.
    """
    if found.shape != control.shape or found.dim() != 3:
        raise ShapeError(
            f"edge maps must be two (b, h, w), got {tuple(found.shape)} and {tuple(control.shape)}"
        )
    return _agreement(_counts(_binary(found, threshold), _binary(control, threshold), tolerance))


def _binary(edges: Tensor, threshold: float) -> Tensor:
    return edges if edges.dtype == torch.bool else edges > threshold


def _counts(found: Tensor, control: Tensor, tolerance: int) -> Tensor:
    """Found edges and those near a control edge, control edges and those near a found edge: (4,) int64."""
    right = (found & _dilate(control, tolerance)).sum()
    covered = (control & _dilate(found, tolerance)).sum()
    return torch.stack([found.sum(), right, control.sum(), covered]).cpu()


def _dilate(edges: Tensor, tolerance: int) -> Tensor:
    side = 2 * tolerance + 1
    near: Tensor = max_pool2d(edges.float()[:, None], side, stride=1, padding=tolerance)[:, 0] > 0
    return near


def _agreement(counts: Tensor) -> EdgeAgreement:
    found, right, control, covered = counts.tolist()
    precision = right / found if found else float(not control)
    recall = covered / control if control else float(not found)
    total = precision + recall
    return EdgeAgreement(precision, recall, 2 * precision * recall / total if total else 0.0)


def control_adherence(
    images: PictureSet, controls: PictureSet, *, extractor: str | Extractor = "canny", tolerance: int = 2
) -> dict[str, float]:
    """Edges extracted again from the pictures against the maps they were made from, over the whole set.

    controls: one map for each picture, in order and of its size, white on black.   extractor: canny, hed, or
    a callable.
    """
    require_a_map_each(len(images), len(controls))
    extract, totals = _extractor(extractor), torch.zeros(4, dtype=torch.int64)
    for index in range(len(images)):
        picture, control = (torch.from_numpy(np.array(source.read(index))) for source in (images, controls))
        if picture.shape != control.shape:
            sizes = f"{tuple(picture.shape[:2])} and {tuple(control.shape[:2])}"
            raise DataError(f"{images.name(index)} and {controls.name(index)} differ in size: {sizes}")
        found = _binary(extract(picture.movedim(-1, 0)[None]), 0.5)
        totals += _counts(found, control.float().mean(-1)[None] > 127.5, tolerance)
    result = _agreement(totals)
    return {"control_precision": result.precision, "control_recall": result.recall, "control_f1": result.f1}


def require_a_map_each(images: int, controls: int) -> None:
    """Raise DataError where the numbers of pictures and of control maps differ."""
    if images != controls:
        raise DataError(f"{images} images but {controls} control maps; give one for each, in order")


def _extractor(name: str | Extractor) -> Extractor:
    if callable(name):
        return name
    if name == "canny":
        return lambda images: torch.stack([canny_edges(image) for image in images])
    if name == "hed":
        return load_hed()
    raise UsageError(f"there is no edge extractor {name!r}; use canny, hed, or a callable")

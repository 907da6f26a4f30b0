"""Does a picture follow its control? Edge F1 with a pixel tolerance, and a Canny detector in torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch.nn.functional import conv2d, max_pool2d, pad

from genzoo.core.errors import DataError, ShapeError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.data.picture_sets import PictureSet

Extractor = Callable[["Tensor"], "Tensor"]
"""uint8 or float (b, 3, h, w) in 0..255 -> edges (b, h, w), bool or in [0, 1]."""


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
    if len(images) != len(controls):
        raise DataError(f"{len(images)} images but {len(controls)} control maps; give one for each, in order")
    extract, totals = _extractor(extractor), torch.zeros(4, dtype=torch.int64)
    for index in range(len(images)):
        picture, control = (torch.from_numpy(source.read(index)) for source in (images, controls))
        if picture.shape != control.shape:
            sizes = f"{tuple(picture.shape[:2])} and {tuple(control.shape[:2])}"
            raise DataError(f"{images.name(index)} and {controls.name(index)} differ in size: {sizes}")
        found = _binary(extract(picture.movedim(-1, 0)[None]), 0.5)
        totals += _counts(found, control.float().mean(-1)[None] > 127.5, tolerance)
    result = _agreement(totals)
    return {"control_precision": result.precision, "control_recall": result.recall, "control_f1": result.f1}


def _extractor(name: str | Extractor) -> Extractor:
    if callable(name):
        return name
    if name == "canny":
        return canny
    if name == "hed":
        return cast(Extractor, import_module("genzoo.evaluation.networks.hed").build())
    raise UsageError(f"there is no edge extractor {name!r}; use canny, hed, or a callable")


def canny(images: Tensor, *, sigma: float = 1.0, low: float = 0.1, high: float = 0.2) -> Tensor:
    """Canny edges (Canny 1986): smooth, Sobel, thin along the gradient, join weak edges to strong ones.

    images: (b, 3 or 1, h, w) in 0..255.   sigma: of the smoothing, in pixels.   low, high: shares of the
    largest gradient an image can have, so that a faint picture has few edges.   Returns (b, h, w) bool.
    """
    grey = images.float().mean(1, keepdim=True) / 255
    smooth = _blur(grey, sigma)
    d_x, d_y = (_filter(smooth, kernel) for kernel in _sobel(grey))
    strength = torch.hypot(d_x, d_y)[:, 0]
    thin = strength * _is_ridge(strength, d_x[:, 0], d_y[:, 0])
    return _join(thin > low, thin > high)


def _blur(images: Tensor, sigma: float) -> Tensor:
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    for shape in ((1, 1, 1, -1), (1, 1, -1, 1)):
        images = _filter(images, kernel.view(shape))
    return images


def _filter(images: Tensor, kernel: Tensor) -> Tensor:
    height, width = kernel.shape[-2:]
    border = (width // 2, width // 2, height // 2, height // 2)
    return conv2d(pad(images, border, mode="replicate"), kernel)


def _sobel(like: Tensor) -> tuple[Tensor, Tensor]:
    # divided by 4: a step from black to white has gradient 1
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=like.device, dtype=like.dtype) / 4
    return kernel.view(1, 1, 3, 3), kernel.T.reshape(1, 1, 3, 3)


def _is_ridge(strength: Tensor, d_x: Tensor, d_y: Tensor) -> Tensor:
    """Whether a pixel is no weaker than both neighbours along its gradient, of four directions."""
    angle = torch.atan2(d_y, d_x) % math.pi
    sector = (angle / (math.pi / 4)).round().long() % 4
    padded = pad(strength, (1, 1, 1, 1))
    height, width = strength.shape[-2:]
    ridge = torch.zeros_like(strength, dtype=torch.bool)
    for number, (right, down) in enumerate(((1, 0), (1, 1), (0, 1), (-1, 1))):
        ahead = padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]
        behind = padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
        # strict on one side: of two equal neighbours one stays
        ridge |= (sector == number) & (strength >= ahead) & (strength > behind)
    return ridge


def _join(weak: Tensor, strong: Tensor) -> Tensor:
    edges = weak & strong
    while True:
        grown = _dilate(edges, 1) & weak
        if torch.equal(grown, edges):
            return edges
        edges = grown

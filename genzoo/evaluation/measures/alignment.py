"""How well features agree: of pictures with the text of their prompts, and with pictures of a concept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.functional import normalize

from genzoo.core.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor


def text_alignment(images: Tensor, texts: Tensor, *, scale: float = 2.5) -> float:
    """CLIPScore: scale * max(cos, 0) of each image with its own prompt, averaged (Hessel et al. 2021).

    images, texts: (n, d), row i belongs to row i.
    """
    return float(text_alignments(images, texts, scale=scale).mean())


def text_alignments(images: Tensor, texts: Tensor, *, scale: float = 2.5) -> Tensor:
    """(n,) of each image, float64: what `text_alignment` averages."""
    if images.shape != texts.shape:
        raise ShapeError(f"one text for each image: {tuple(images.shape)} and {tuple(texts.shape)}")
    cosines = (normalize(images.double()) * normalize(texts.double())).sum(1)
    return scale * cosines.clamp_min(0)


def image_alignment(images: Tensor, targets: Tensor) -> float:
    """Mean cosine over all pairs of generated and target images.   images: (n, d), targets: (m, d)."""
    return float(image_alignments(images, targets).mean())


def image_alignments(images: Tensor, targets: Tensor) -> Tensor:
    """(n,) mean cosine of each image with the targets, float64: what `image_alignment` averages."""
    if images.shape[1:] != targets.shape[1:]:
        raise ShapeError(f"features do not fit: {tuple(images.shape)} and {tuple(targets.shape)}")
    return (normalize(images.double()) @ normalize(targets.double()).T).mean(1)

"""Pixels as features: no weights, always there; good for smoke tests and for tiny images such as digits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from einops import rearrange
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from genzoo.core.errors import UsageError
from genzoo.evaluation.features import FeatureNetwork

if TYPE_CHECKING:
    from torch import Tensor


def _resize(images: Tensor, size: int) -> Tensor:
    """To size x size, area average or nearest when smaller; uint8 (b, c, h, w) -> float32 in [0, 1]."""
    images = images.float() / 255
    larger = min(images.shape[-2:]) >= size
    return adaptive_avg_pool2d(images, size) if larger else interpolate(images, size=(size, size))


def build(weights: str | Path | None = None, device: str = "cpu") -> FeatureNetwork:
    """Output: pool (256), the grey image averaged to 16 x 16."""
    _refuse(weights)

    def extract(images: Tensor) -> dict[str, Tensor]:
        return {"pool": _resize(images.to(device), 16).mean(1).flatten(1)}

    return FeatureNetwork("pixels", extract, ("pool",), "grey, area average to 16 x 16, to [0, 1]", "pixel")


def build_video(weights: str | Path | None = None, device: str = "cpu") -> FeatureNetwork:
    """Output: pool, every frame of the clip in grey at 8 x 8; clips: (b, 3, f, h, w)."""
    _refuse(weights)

    def extract(clips: Tensor) -> dict[str, Tensor]:
        frames = rearrange(clips.to(device), "b c f h w -> (b f) c h w")
        return {"pool": rearrange(_resize(frames, 8).mean(1), "(b f) h w -> b (f h w)", b=len(clips))}

    preprocessing = "grey, area average to 8 x 8, to [0, 1]"
    return FeatureNetwork("video-pixels", extract, ("pool",), preprocessing, "pixel", is_video=True)


def _refuse(weights: str | Path | None) -> None:
    if weights is not None:
        raise UsageError("pixel features have no weights; leave --weights out")

"""Pictures, a codec that counts, and a cache of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hostile_images import photo
from torch import Tensor

from genzoo.data.image_folder import ImageFolder
from genzoo.data.latent_cache import CacheReport, build_latent_cache


class HalvingCodec:
    """Moments of a picture: 2 x 2 means of each channel, and a log-variance of -3; counts what it encodes."""

    def __init__(self, fingerprint: str = "halving", value: float = -3.0) -> None:
        self.fingerprint, self.value, self.encoded = fingerprint, value, 0

    def latent_shape(self, pixel_shape: tuple[int, ...]) -> tuple[int, ...]:
        return pixel_shape[0], pixel_shape[1] // 2, pixel_shape[2] // 2

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        self.device = device

    def moments(self, pixels: Tensor) -> Tensor:
        self.encoded += len(pixels)
        mean = torch.nn.functional.avg_pool2d(pixels, 2)
        return torch.cat([mean, torch.full_like(mean, self.value)], dim=1)


def write_pictures(folder: Path) -> Path:
    """Seven pictures of two classes."""
    for i in range(7):
        place = folder / f"class{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        photo(20 + i, 18).save(place / f"{i}.png")
    return folder


def build(root: Path, cache: Path, codec: HalvingCodec | None = None, **options: Any) -> CacheReport:
    settings = {
        key: options.pop(key) for key in ("image_size", "horizontal_flip", "channels") if key in options
    }
    images = ImageFolder(root, **({"image_size": 8} | settings))
    return build_latent_cache(images, codec or HalvingCodec(), cache, batch_size=3, **options)


def counts(report: CacheReport) -> tuple[int, int, int]:
    return report.reused, report.built, len(report.bad)

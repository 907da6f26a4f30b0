"""HED as an edge extractor for metrics: bytes in, probabilities out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from genzoo.pretrained.hed import load_hed

if TYPE_CHECKING:
    from torch import Tensor


def build(weights: str | Path | None = None, device: str = "cpu") -> Callable[[Tensor], Tensor]:
    """An edge extractor (b, 3, h, w) in 0..255 -> (b, h, w) in [0, 1]. An .h5 file needs the package h5py."""
    module = load_hed(weights).to(device)

    @torch.inference_mode()
    def edges(images: Tensor) -> Tensor:
        result: Tensor = module(images.to(device))
        return result.cpu()

    return edges

"""Per-image preparation: resize, centre crop, normalise, as the published transforms do it with Pillow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def resize_crop_normalise(
    *, resize: int, crop: int, mean: Sequence[float], std: Sequence[float], filter: str = "bicubic"
) -> Callable[[Image.Image], Tensor]:
    """Short side to `resize`, centre crop, then (x/255 - mean) / std; gives (3, crop, crop) float32."""
    centre, spread = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))

    def prepare(image: Image.Image) -> Tensor:
        image = image.convert("RGB")
        scale = resize / min(image.size)
        width, height = (max(resize, int(side * scale)) for side in image.size)
        image = image.resize((width, height), FILTERS[filter])
        left, top = round((width - crop) / 2), round((height - crop) / 2)
        image = image.crop((left, top, left + crop, top + crop))
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1) / 255
        return (pixels - centre) / spread

    return prepare

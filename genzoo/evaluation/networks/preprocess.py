"""Networks that look at single pictures: resized, cropped and normalised with Pillow, as published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from genzoo.evaluation.features import FeatureNetwork
from genzoo.pretrained.known_weights import file_sha256

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def resize_crop_normalise(
    *, resize: int, crop: int, mean: Sequence[float], std: Sequence[float], filter: str = "bicubic"
) -> Callable[[Image.Image], Tensor]:
    """Short side to `resize`, centre crop, then (x/255 - mean) / std; gives (3, crop, crop) float32."""

    def prepare(image: Image.Image) -> Tensor:
        image = image.convert("RGB")
        scale = resize / min(image.size)
        width, height = (max(resize, int(side * scale)) for side in image.size)
        image = image.resize((width, height), FILTERS[filter])
        left, top = round((width - crop) / 2), round((height - crop) / 2)
        image = image.crop((left, top, left + crop, top + crop))
        return _normalised(image, mean, std)

    return prepare


def stretch_normalise(
    size: int, *, mean: Sequence[float], std: Sequence[float]
) -> Callable[[Image.Image], Tensor]:
    """To size x size whatever the aspect, Pillow bicubic on uint8, then (x/255 - mean) / std."""

    def prepare(image: Image.Image) -> Tensor:
        return _normalised(image.convert("RGB").resize((size, size), FILTERS["bicubic"]), mean, std)

    return prepare


def square_normalise(
    size: int, *, mean: Sequence[float], std: Sequence[float]
) -> Callable[[Image.Image], Tensor]:
    """The largest central square, then Pillow bicubic on uint8 to size x size, then (x/255 - mean) / std."""

    def prepare(image: Image.Image) -> Tensor:
        image, side = image.convert("RGB"), min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        return _normalised(square.resize((size, size), FILTERS["bicubic"]), mean, std)

    return prepare


def _normalised(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    centre, spread = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1) / 255
    return (pixels - centre) / spread


def picture_network(
    name: str,
    label: str,
    extract: Callable[[Tensor], Mapping[str, Tensor]],
    path: Path,
    *,
    outputs: tuple[str, ...] = ("pool",),
    resize: int,
    crop: int,
    mean: Sequence[float],
    std: Sequence[float],
    filter: str = "bicubic",
    preprocessing: str,
) -> FeatureNetwork:
    """A feature network that takes pictures prepared one by one.   path: its weights.

    extract: runs without gradients, and gives float32.   preprocessing: all of it, in words.
    """

    @torch.inference_mode()
    def run(images: Tensor) -> dict[str, Tensor]:
        return {key: value.float() for key, value in extract(images).items()}

    return FeatureNetwork(
        name=name,
        extract=run,
        outputs=outputs,
        preprocessing=preprocessing,
        label=label,
        prepare=resize_crop_normalise(resize=resize, crop=crop, mean=mean, std=std, filter=filter),
        weights_file=path.name,
        weights_sha256=file_sha256(path),
    )

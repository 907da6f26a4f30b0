"""Detectors of the package controlnet_aux, with weights from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import WeightsError
from genzoo.core.optional import require
from genzoo.pictures.pixels import nearest_levels
from genzoo.pretrained.control_pictures import check_pixels, resized
from genzoo.pretrained.known_weights import file_sha256


class AuxiliaryDetector:
    """One detector class by name.

    detector: such as "NormalBaeDetector".   weights: its file, or the folder that holds `file`.   url: where
    to fetch it.
    """

    def __init__(self, detector: str, weights: str | Path, *, file: str, url: str) -> None:
        path = Path(weights).expanduser()
        path = path / file if path.is_dir() else path
        if not path.is_file():
            raise WeightsError(
                f"there is no {file}",
                where=str(path),
                fix=f"fetch it from {url} and name its folder as weights",
            )
        self.digest = file_sha256(path)
        package = require("controlnet_aux", extra="control")
        try:
            self._detector: Any = getattr(package, detector).from_pretrained(
                str(path.parent), filename=path.name
            )
        except (KeyError, RuntimeError, OSError, ValueError) as error:
            raise WeightsError(
                f"{path.name} does not fit {detector}",
                where=str(path),
                why=str(error).partition("\n")[0][:200],
            ) from error

    def to(self, device: torch.device | str) -> None:
        """Move the network."""
        self._detector.to(device)

    def __call__(self, pixels: Tensor, resolution: int) -> Tensor:
        """Levels (b, 3, h, w) in 0..255, resized back bilinearly.   pixels: (b, 3, h, w) in [-1, 1]."""
        check_pixels(pixels)
        pictures = nearest_levels(pixels).byte().permute(0, 2, 3, 1).cpu().numpy()
        found = [self._levels(picture, resolution) for picture in pictures]
        levels = [resized(one[None], list(pixels.shape[-2:])) for one in found]
        return torch.cat(levels).to(pixels.device)

    def _levels(self, picture: np.ndarray, resolution: int) -> Tensor:
        options = {"detect_resolution": resolution, "image_resolution": resolution, "output_type": "np"}
        found = np.ascontiguousarray(self._detector(picture, **options))
        return torch.from_numpy(found).permute(2, 0, 1).float()

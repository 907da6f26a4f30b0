"""Surface normals: NormalBAE through controlnet_aux, or the slopes of a predicted depth."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv2d, normalize, pad

from genzoo.core.controls import control_fingerprint
from genzoo.core.errors import UsageError
from genzoo.pretrained.auxiliary import AuxiliaryDetector
from genzoo.pretrained.control_pictures import as_control, spread
from genzoo.pretrained.depth import DepthNetwork

NORMALBAE_FILE = "scannet.pt"
NORMALBAE_URL = "https://huggingface.co/lllyasviel/Annotators"
# how much of a normal points at the viewer, beside slopes of a depth in 0..1 under 3x3 Sobel filters
TOWARDS = 2 * math.pi


class Normal:
    """Normals x, y, z as red, green and blue, 0 as 127.5.

    weights: NormalBAE's scannet.pt or its folder, which the released CAR weights saw; or a folder of a depth
    model, as for Depth, whose slopes are then taken.   background: share of the nearness below which a point
    counts as background and faces the viewer; for depth models only.   resolution: short side that the
    network looks at.
    """

    channels = 3

    def __init__(
        self, *, weights: str | None = None, resolution: int | None = None, background: float = 0.1
    ) -> None:
        if weights is None:
            raise UsageError(
                "normals come without weights",
                fix=f"fetch {NORMALBAE_FILE} from {NORMALBAE_URL}, or use a folder of a depth model",
            )
        self.background = background
        self._depth = DepthNetwork(weights, resolution) if _holds_depth(weights) else None
        self._detector = None
        if self._depth is None:
            self.resolution = resolution or 512
            self._detector = AuxiliaryDetector(
                "NormalBaeDetector", weights, file=NORMALBAE_FILE, url=NORMALBAE_URL
            )
            settings, digest = {"resolution": self.resolution}, self._detector.digest
        else:
            settings = {"resolution": self._depth.resolution or 0}
            digest = f"{self._depth.digest}-{background}"
        self.fingerprint = control_fingerprint("normal", digest, **settings)

    def to(self, device: torch.device | str) -> None:
        """Move the network."""
        for part in (self._depth, self._detector):
            if part is not None:
                part.to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] -> normals of that shape and range."""
        if self._depth is not None:
            return as_control(from_depth(self._depth(pixels), background=self.background))
        assert self._detector is not None
        return as_control(self._detector(pixels, self.resolution))


def from_depth(nearness: Tensor, *, background: float) -> Tensor:
    """Normals as levels (b, 3, h, w) in 0..255.   nearness: (b, 1, h, w), of any range."""
    near = spread(nearness) / 255
    smooth = torch.tensor([1.0, 2.0, 1.0], device=near.device)
    slope = torch.tensor([-1.0, 0.0, 1.0], device=near.device)
    kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])[:, None]
    slopes = conv2d(pad(near, (1, 1, 1, 1), mode="replicate"), kernels)
    slopes = slopes.masked_fill(near < background, 0.0)
    towards = torch.full_like(near, TOWARDS)
    return normalize(torch.cat([slopes, towards], dim=1), dim=1) * 127.5 + 127.5


def _holds_depth(weights: str) -> bool:
    folder = Path(weights).expanduser()
    return folder.is_dir() and not (folder / NORMALBAE_FILE).is_file() and (folder / "config.json").is_file()

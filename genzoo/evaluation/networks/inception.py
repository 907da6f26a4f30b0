"""The Inception network of 2015 in torch-fidelity's port, with a tap for sFID that it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange

from genzoo.core.errors import WeightsError
from genzoo.core.optional import require
from genzoo.evaluation.features import FeatureNetwork
from genzoo.pretrained.known_weights import WeightsFile, file_sha256, find_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

FILE = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS = WeightsFile(
    file=FILE,
    url=f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}",
    licence="Apache-2.0 (TensorFlow models)",
    sha256="6726825d",
)
SPATIAL_CHANNELS = 7  # ADM keeps 7 of 192 channels: 17 * 17 * 7 = 2,023 dimensions


def build(weights: str | Path | None = None, device: str = "cpu") -> FeatureNetwork:
    """Outputs: pool (2,048), spatial (2,023), logits (1,008, without bias); resizes to 299 itself."""
    theirs = require("torch_fidelity.feature_extractor_inceptionv3", extra="eval")
    path = find_weights(WEIGHTS, weights)
    check_is_plain_tensors(path)
    module = theirs.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
    ).to(device)
    return FeatureNetwork(
        name="inception-2015",
        extract=SpatialTap(module, device),
        outputs=("pool", "spatial", "logits"),
        preprocessing="uint8, TensorFlow 1 bilinear to 299 x 299 inside the network, (x - 128) / 128",
        label="",
        weights_file=path.name,
        weights_sha256=file_sha256(path),
    )


def check_is_plain_tensors(path: Path) -> None:
    """torch-fidelity unpickles its file without restriction: make sure first that it holds tensors only."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path.name} is not a plain file of tensors", where=str(path), why=reason
        ) from error


class SpatialTap:
    """Runs the network once and reads the feature map for sFID on the way.

    ADM reads the graph's node `mixed_6/conv`. In that graph a node of this name is a branch's last operation,
    after batch norm and ReLU (`conv/Conv2D`, `conv/batchnorm`, ..., `conv`), and its weights are those of
    Mixed_6d.branch1x1 in the port; so the tap is that block's output.
    """

    def __init__(self, module: nn.Module, device: str) -> None:
        self.module, self.device = module, device
        self._map: Tensor | None = None
        module.get_submodule("Mixed_6d.branch1x1").register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._map = output[:, :SPATIAL_CHANNELS]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 (b, 3, h, w) -> features; the spatial map flattened in TensorFlow's order (h, w, c)."""
        pool, logits = self.module(images.to(self.device))
        assert self._map is not None
        spatial = rearrange(self._map, "b c h w -> b (h w c)")
        return {"pool": pool, "spatial": spatial.float(), "logits": logits}

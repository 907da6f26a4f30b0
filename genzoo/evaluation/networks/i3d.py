"""The I3D TorchScript of StyleGAN-V, the feature network of FVD."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import WeightsError
from genzoo.evaluation.features import FeatureNetwork
from genzoo.pretrained.known_weights import WeightsFile, file_sha256, find_weights

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = WeightsFile(
    file="i3d_torchscript.pt",
    url="https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt (the link in StyleGAN-V's repository)",
    licence="Apache-2.0 (Kinetics-400 I3D, TensorFlow Hub)",
)


def build(weights: str | Path | None = None, device: str = "cpu") -> FeatureNetwork:
    """Output: pool (400) of clips uint8 (b, 3, f, h, w); the file rescales and resizes to 224 itself.

    A TorchScript file is a program: use one you trust; its hash is in the result.
    """
    path = find_weights(WEIGHTS, weights)
    try:
        module = torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"{path.name} is not a TorchScript file", where=str(path), why=reason) from error

    @torch.inference_mode()
    def extract(clips: Tensor) -> dict[str, Tensor]:
        clips = clips.to(device)
        return {"pool": module(clips, rescale=True, resize=True, return_features=True)}

    return FeatureNetwork(
        name="i3d-kinetics400",
        extract=extract,
        outputs=("pool",),
        preprocessing="uint8 frames, rescaled and resized to 224 x 224 inside the network",
        label="",
        weights_file=path.name,
        weights_sha256=file_sha256(path),
        is_video=True,
    )

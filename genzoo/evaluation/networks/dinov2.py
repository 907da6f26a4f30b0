"""DINOv2 ViT-L/14, the feature network of FDD (Stein et al. 2023), from the file that its authors publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import interpolate

from genzoo.core.errors import WeightsError
from genzoo.core.optional import require
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.networks.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    picture_network,
    stretch_normalise,
)
from genzoo.pretrained.known_weights import WeightsFile, find_weights
from genzoo.pretrained.loading import load_module, load_state

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = WeightsFile(
    file="dinov2_vitl14_pretrain.pth",
    url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    licence="Apache-2.0 (Meta DINOv2)",
)
SIZE, PATCH, HEAD = 224, 14, 64
OFFSET = 0.1  # added to the grid's side when positions are resized, as the published model does


def build(weights: str | Path | None = None, device: str = "cpu") -> FeatureNetwork:
    """Output: pool (1,024), the class token after the final norm.

    Width and depth are those of the file, so that its smaller relatives load too; only ViT-L/14 gives FDD.
    """
    path = find_weights(WEIGHTS, weights)
    module = load_dinov2(path).to(device)
    network = picture_network(
        "dinov2-vitl14",
        "dinov2",
        lambda images: {"pool": module(images.to(device))},
        path,
        resize=SIZE,
        crop=SIZE,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        preprocessing=f"Pillow bicubic to {SIZE} x {SIZE}, aspect not kept, ImageNet mean and std",
    )
    prepare = stretch_normalise(SIZE, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return replace(network, prepare=prepare, own=("fdd",))


def load_dinov2(path: Path) -> Any:
    """timm's module of the file's sizes, which names its layers as the file does."""
    state = {name: value for name, value in load_state(path).items() if name != "mask_token"}
    try:
        (width, _, patch, _), depth = state["patch_embed.proj.weight"].shape, _depth(state)
        hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
        state["pos_embed"] = resized_positions(state["pos_embed"], SIZE // patch)
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"{path.name} is not a DINOv2", where=str(path), why=f"its layers differ: {error}"
        ) from error
    module = require("timm.models.vision_transformer").VisionTransformer(
        img_size=SIZE,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=max(1, width // HEAD),
        mlp_ratio=hidden / width,
        init_values=1.0,
        num_classes=0,
        global_pool="token",
    )
    return load_module(module, path, state=state)


def _depth(state: Mapping[str, Tensor]) -> int:
    return 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))


def resized_positions(positions: Tensor, side: int) -> Tensor:
    """Positions (1, 1 + s², d) for side x side patches: bicubic, without antialias, from (side + 0.1) / s."""
    first, grid = positions[:, :1], positions[:, 1:]
    stored = round(grid.shape[1] ** 0.5)
    if stored**2 != grid.shape[1]:
        raise ValueError(f"{grid.shape[1]} positions are no square")
    if stored == side:
        return positions
    square = grid.float().reshape(1, stored, stored, -1).permute(0, 3, 1, 2)
    scale = (side + OFFSET) / stored
    small = interpolate(square, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([first.float(), small.permute(0, 2, 3, 1).reshape(1, side**2, -1)], 1)

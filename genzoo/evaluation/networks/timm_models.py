"""Any timm model as a feature network, and DINO ViT-S/16 by name."""

from __future__ import annotations

from pathlib import Path

from genzoo.core.optional import require
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.networks.preprocess import IMAGENET_MEAN, IMAGENET_STD, picture_network
from genzoo.pretrained.known_weights import WeightsFile, find_weights
from genzoo.pretrained.loading import load_module

DINO = WeightsFile(
    file="dino_deitsmall16_pretrain.pth",
    url="https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
    licence="Apache-2.0 (Meta DINO)",
)


def build_dino(weights: str | Path | None = None, device: str = "cpu") -> FeatureNetwork:
    """Output: pool (384), the class token; resize 256 bicubic, crop 224, ImageNet statistics."""
    path = find_weights(DINO, weights)
    return _network("dino-vits16", "vit_small_patch16_224", path, device, resize=256, crop=224, label="dino")


def build(weights: str | Path, device: str = "cpu", *, model: str) -> FeatureNetwork:
    """Output: pool, what timm gives with num_classes=0; its own default size, mean and std."""
    config = require("timm").get_pretrained_cfg(model)
    crop = config.input_size[-1] if config else 224
    resize = int(crop / (config.crop_pct if config else 0.875))
    return _network(f"timm:{model}", model, Path(weights), device, resize=resize, crop=crop, label=model)


def _network(
    name: str, model: str, path: Path, device: str, *, resize: int, crop: int, label: str
) -> FeatureNetwork:
    timm = require("timm")
    config = timm.get_pretrained_cfg(model)
    module = timm.create_model(model, pretrained=False, num_classes=0)
    head = config.classifier if config and isinstance(config.classifier, str) else "head"
    module = load_module(module, path, ignore=[f"{head}.*"]).to(device)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if label == "dino" or not config else (config.mean, config.std)
    return picture_network(
        name,
        label,
        lambda images: {"pool": module(images.to(device))},
        path,
        resize=resize,
        crop=crop,
        mean=mean,
        std=std,
        preprocessing=f"Pillow bicubic to {resize} (short side), centre crop {crop}, mean {mean}, std {std}",
    )

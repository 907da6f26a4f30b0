"""CLIP image and text features through open_clip, from a local file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from genzoo.core.optional import require
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.networks.loading import load_into, read_tensors
from genzoo.evaluation.networks.preprocess import CLIP_MEAN, CLIP_STD, resize_crop_normalise
from genzoo.pretrained.known_weights import WeightsFile, file_sha256, find_weights

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = WeightsFile(
    file="open_clip_model.safetensors",
    url="https://huggingface.co/timm/vit_base_patch32_clip_224.openai",
    licence="MIT (OpenAI CLIP)",
)


def build(weights: str | Path | None = None, device: str = "cpu") -> FeatureNetwork:
    """OpenAI's ViT-B/32 (quick GELU) with its text encoder."""
    path = find_weights(WEIGHTS, weights)
    return _network("clip-vit-b32", "ViT-B-32-quickgelu", path, device)


def build_open_clip(weights: str | Path, device: str = "cpu", *, model: str) -> FeatureNetwork:
    """Any model open_clip can build, with a local file of its weights."""
    return _network(f"open_clip:{model}", model, Path(weights), device)


def _network(name: str, model: str, path: Path, device: str) -> FeatureNetwork:
    open_clip = require("open_clip")
    module = open_clip.create_model(model, pretrained=None)
    load_into(module, read_tensors(path), path)
    module = module.to(device).eval()
    tokenize = open_clip.get_tokenizer(model)
    size = module.visual.image_size
    side = size[0] if isinstance(size, tuple) else size

    @torch.inference_mode()
    def extract(images: Tensor) -> dict[str, Tensor]:
        return {"pool": module.encode_image(images.to(device)).float()}

    @torch.inference_mode()
    def encode_text(prompts: Sequence[str]) -> Tensor:
        features: Tensor = module.encode_text(tokenize(list(prompts)).to(device)).float()
        return features.cpu()

    return FeatureNetwork(
        name=name,
        extract=extract,
        outputs=("pool",),
        preprocessing=f"Pillow bicubic to {side} on the short side, centre crop, CLIP mean and std",
        label="clip",
        prepare=resize_crop_normalise(resize=side, crop=side, mean=CLIP_MEAN, std=CLIP_STD),
        weights_file=path.name,
        weights_sha256=file_sha256(path),
        extras={"encode_text": encode_text},
    )

"""CLIP image and text features through open_clip, from a local file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.networks.preprocess import CLIP_MEAN, CLIP_STD, picture_network
from genzoo.pretrained.clip import load_clip
from genzoo.pretrained.known_weights import WeightsFile, find_weights

WEIGHTS = WeightsFile(
    file="open_clip_model.safetensors",
    url="https://huggingface.co/timm/vit_base_patch32_clip_224.openai",
    licence="MIT (OpenAI CLIP)",
)


def build(weights: str | Path | None = None, device: str = "cpu") -> FeatureNetwork:
    """OpenAI's ViT-B/32 (quick GELU) with its text encoder."""
    return _network("clip-vit-b32", "ViT-B-32-quickgelu", find_weights(WEIGHTS, weights), device)


def build_open_clip(weights: str | Path, device: str = "cpu", *, model: str) -> FeatureNetwork:
    """Any model open_clip can build, with a local file of its weights."""
    return _network(f"open_clip:{model}", model, Path(weights), device)


def _network(name: str, model: str, path: Path, device: str) -> FeatureNetwork:
    clip = load_clip(model, weights=path, device=device)
    side = clip.image_size
    network = picture_network(
        name,
        "clip",
        lambda images: {"pool": clip.encode_image(images)},
        path,
        resize=side,
        crop=side,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        preprocessing=f"Pillow bicubic to {side} on the short side, centre crop, CLIP mean and std",
    )
    return replace(network, extras={"encode_text": clip.encode_text})

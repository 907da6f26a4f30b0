"""CLIP image and text features through open_clip, from a local file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.networks.preprocess import CLIP_MEAN, CLIP_STD, picture_network, square_normalise
from genzoo.pretrained.clip import load_clip
from genzoo.pretrained.known_weights import WeightsFile, find_weights

WEIGHTS = WeightsFile(
    file="open_clip_model.safetensors",
    url="https://huggingface.co/timm/vit_base_patch32_clip_224.openai",
    licence="MIT (OpenAI CLIP)",
)

LARGE = WeightsFile(
    file="open_clip_vit_l14_336.safetensors",
    url="https://huggingface.co/timm/vit_large_patch14_clip_336.openai (its open_clip_model.safetensors)",
    licence="MIT (OpenAI CLIP)",
)


def build(weights: str | Path | None = None, device: str = "cpu") -> FeatureNetwork:
    """OpenAI's ViT-B/32 (quick GELU) with its text encoder."""
    return _network("clip-vit-b32", "ViT-B-32-quickgelu", find_weights(WEIGHTS, weights), device)


def build_large(weights: str | Path | None = None, device: str = "cpu") -> FeatureNetwork:
    """OpenAI's ViT-L/14 at 336 pixels, CMMD's network: embeddings after the projection.

    weights: the file, or a folder with open_clip_config.json and weights of that layout.
    """
    folder = weights is not None and (Path(weights) / "open_clip_config.json").is_file()
    path = None if folder else find_weights(LARGE, weights)
    clip = load_clip(Path(str(weights)) if folder else "ViT-L-14-336-quickgelu", weights=path, device=device)
    side = clip.image_size
    network = picture_network(
        "clip-vit-l14-336",
        "clip336",
        lambda images: {"pool": clip.encode_image(images)},
        clip.path,
        resize=side,
        crop=side,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        preprocessing=f"central square, Pillow bicubic to {side} x {side}, CLIP mean and std",
    )
    prepare = square_normalise(side, mean=CLIP_MEAN, std=CLIP_STD)
    return replace(network, prepare=prepare, own=("cmmd",), extras={"encode_text": clip.encode_text})


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

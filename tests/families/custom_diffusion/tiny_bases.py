"""Random text-to-image models in diffusers' layout: CLIP's real vocabulary, everything else tiny."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.families.custom_diffusion.files.base_weights import BaseWeights, fingerprint
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.pretrained.clip_vocabulary import clip_tokenizer


def text_encoder(width: int, *, projected: bool, seed: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=width,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )
    model = (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)
    # the usual initial scale makes rows that hardly depend on the words
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return model.eval()


def unet(kind: str, width: int, pooled: int = 0) -> Any:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(3)
    common: dict[str, Any] = {
        "sample_size": 8,
        "norm_num_groups": 4,
        "cross_attention_dim": width,
        "layers_per_block": 2,
    }
    if kind == "sd":
        return UNet2DConditionModel(
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=2,
            **common,
        ).eval()
    # the blocks of SDXL: 70 cross-attention layers
    return UNet2DConditionModel(
        block_out_channels=(4, 8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(1, 2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + pooled,
        **common,
    ).eval()


def build_base(folder: Path, kind: str) -> Path:
    """kind: "sd", one encoder 24 wide, or "sdxl", two of 24 and 40."""
    widths = [24] if kind == "sd" else [24, 40]
    tokenizer = clip_tokenizer()
    for index, width in enumerate(widths):
        suffix = "_2" if index else ""
        tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
        text_encoder(width, projected=bool(index), seed=index).save_pretrained(
            folder / f"text_encoder{suffix}"
        )
    unet(kind, sum(widths), widths[-1]).save_pretrained(folder / "unet")
    autoencoder().save_pretrained(folder / "vae")
    scheduler = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085}
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({**scheduler, "beta_end": 0.012}))
    index = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def autoencoder(levels: int = 2, width: int = 8) -> Any:
    """Two pixels along a side for each of four latents, or as many more as there are further levels."""
    from diffusers import AutoencoderKL

    torch.manual_seed(4)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(width // 2, *[width] * (levels - 1)),
        norm_num_groups=2,
        latent_channels=4,
    ).eval()


def make_concept(
    base: Path, seed: int, *, token: str | None, phrase: str | None, size: float = 0.3
) -> ConceptDelta:
    """A concept as training would leave it: changed keys and values, a token in each encoder."""
    generator = torch.Generator().manual_seed(seed)
    weights = BaseWeights(base)
    taught: dict[str, Tensor] = {}
    for name in weights.key_values:
        W_0 = weights[name]
        u, v = (
            torch.randn(len(W_0), 2, generator=generator),
            torch.randn(2, W_0.shape[1], generator=generator),
        )
        taught[name] = W_0 + size * u @ v / W_0.shape[1] ** 0.5
    widths = [24] if weights.width == 24 else [24, 40]
    tokens = {token: [torch.randn(width, generator=generator) for width in widths]} if token else {}
    return ConceptDelta(
        weights=taught,
        tokens=tokens,
        phrases=(phrase,) if phrase else (),
        base_model=base.name,
        base_fingerprint=fingerprint(weights),
    )


def build_clip(folder: Path) -> Path:
    """A tiny random open_clip model."""
    import open_clip
    from safetensors.torch import save_file

    config: dict[str, Any] = {
        "embed_dim": 6,
        "vision_cfg": {"image_size": 8, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2},
    }
    folder.mkdir()
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return folder

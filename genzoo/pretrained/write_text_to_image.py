"""Writing a text-to-image model: a folder that diffusers loads."""

from __future__ import annotations

from pathlib import Path

from genzoo.core import files
from genzoo.core.errors import UsageError
from genzoo.core.tensor_files import read_tensors
from genzoo.pretrained.packing import halved, save_tensors
from genzoo.pretrained.text_to_image import TextToImageParts


def write_folder(parts: TextToImageParts, folder: str | Path, *, half: bool = False) -> Path:
    """Write a folder that StableDiffusionPipeline.from_pretrained of diffusers loads.

    half: store 16-bit numbers. Only for models with one text encoder and an autoencoder. Raises UsageError.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline

    if parts.is_sdxl or parts.vae is None:
        raise UsageError("only models with one text encoder and an autoencoder are written in this layout")
    vae = AutoencoderKL.from_config({**parts.vae.config, "scaling_factor": parts.vae.scaling_factor})
    vae.load_state_dict(parts.vae.vae.state_dict())
    scheduler = DDIMScheduler.from_config({"clip_sample": False, "steps_offset": 1, **parts.scheduler})
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=parts.text_encoders[0],
        tokenizer=parts.tokenizers[0],
        unet=parts.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )

    def fill(target: Path) -> None:
        pipeline.save_pretrained(str(target))
        if half:
            for path in target.rglob("*.safetensors"):
                save_tensors({name: halved(value) for name, value in read_tensors(path).items()}, path)

    return files.write_folder(folder, fill)

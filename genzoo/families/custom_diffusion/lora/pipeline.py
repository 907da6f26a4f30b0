"""A base that genzoo does not sample itself, through its pipeline in diffusers: what LoRA files change in it,
and a few steps to see what its modules read.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from genzoo.core.errors import UsageError, WeightsError
from genzoo.families.custom_diffusion.edit.attention_models import WITHOUT_LORA
from genzoo.families.custom_diffusion.files.copied_base import base_folder
from genzoo.pretrained.pipeline_text import load_pipeline

STEPS = 4
SIDE: int | None = None  # of the pictures in pixels; the pipeline's own when None


class PipelineParts:
    """unet: the transformer.   text_encoders: the first two, where there are such. Float32, on the CPU."""

    def __init__(self, base: str | Path) -> None:
        self.pipeline: Any = load_pipeline(base_folder(base))
        self.unet: Any = self.pipeline.transformer
        encoders = [getattr(self.pipeline, name, None) for name in ("text_encoder", "text_encoder_2")]
        self.text_encoders = [encoder for encoder in encoders if encoder is not None]

    def sample(self, prompts: Sequence[str], seed: int) -> None:
        """A few steps of each prompt without guidance; what comes out is not wanted."""
        takes = inspect.signature(type(self.pipeline).__call__).parameters
        options: dict[str, Any] = {"num_inference_steps": STEPS, "output_type": "latent"}
        # a model that was told its guidance in training reads it as a number
        if not self.unet.config.get("guidance_embeds"):
            options["guidance_scale"] = 1.0
        if SIDE is not None:
            options |= {"height": SIDE, "width": SIDE, "use_resolution_binning": False}
        for number, prompt in enumerate(prompts):
            generator = torch.Generator().manual_seed(seed + number)
            given = {name: value for name, value in options.items() if name in takes}
            try:
                self.pipeline(prompt=prompt, generator=generator, **given)
            except (AttributeError, RuntimeError, TypeError, ValueError) as error:
                raise WeightsError(
                    "the base's pipeline cannot be sampled with a prompt alone",
                    where=type(self.pipeline).__name__,
                    why=str(error).strip().partition("\n")[0][:200],
                    fix="a text-to-image base",
                ) from error


def check_lora_output(kind: str, output: str | Path | None) -> None:
    """Raise UsageError where a LoRA of a transformer would be a file that its pipeline cannot load."""
    if kind in WITHOUT_LORA and output is not None and Path(output).suffix == ".safetensors":
        raise UsageError(
            f"the pipeline of {kind} in diffusers cannot load a LoRA",
            fix="name a folder, which PeftModel.from_pretrained reads, or --as-base for a whole base",
        )

"""What tests look at in a pipeline: its parts, its output, and the keys and values of a prompt's words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.pretrained.prompts import load_prompt_encoder


def tiny_pipeline(base: Path, suffixes: tuple[str, ...]) -> Any:
    from diffusers import UNet2DConditionModel

    encoder = load_prompt_encoder(base)
    parts: dict[str, Any] = {"unet": UNet2DConditionModel.from_pretrained(base / "unet").eval()}
    for suffix, tokenizer, model in zip(suffixes, encoder.tokenizers, encoder.models, strict=True):
        parts |= {f"tokenizer{suffix}": tokenizer, f"text_encoder{suffix}": model}
    return SimpleNamespace(**parts)


@torch.no_grad()
def output(unet: Any) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    latents, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 6, 24, generator=generator)
    return unet(latents, torch.tensor([3, 700]), text).sample


def trained(pipeline: Any, concept: ConceptDelta) -> Tensor:
    """The output of the base with the concept's matrices in place, written by hand."""
    state = pipeline.unet.state_dict()
    before = {name: state[name].clone() for name in concept.weights}
    pipeline.unet.load_state_dict({**state, **concept.weights})
    result = output(pipeline.unet)
    pipeline.unet.load_state_dict({**pipeline.unet.state_dict(), **before})
    return result


def target_values(base: Path, concept: ConceptDelta, prompt: str) -> dict[str, Tensor]:
    """Keys and values of a prompt's own words under a concept's weights and tokens."""
    encoder = load_prompt_encoder(base)
    encoder.add_tokens(concept.tokens)
    rows = encoder.encode([prompt])[0].rows[1:]
    return {name: rows @ weight.T for name, weight in concept.weights.items()}

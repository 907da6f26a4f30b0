"""A base with a transformer, ready to learn concepts: its pipeline in diffusers, of which the projections of
the text and a few word rows move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import UsageError
from genzoo.families.custom_diffusion.edit.attention_models import projections
from genzoo.families.custom_diffusion.files.apply import check_base, check_fits
from genzoo.families.custom_diffusion.files.base_weights import fingerprint
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.families.custom_diffusion.files.copied_base import base_folder
from genzoo.families.custom_diffusion.training.taught import check_phrases, delta_of, named_in
from genzoo.families.custom_diffusion.training.tokens import RARE_TOKENS, extend_encoders
from genzoo.families.custom_diffusion.training.trainable import round_frozen
from genzoo.pretrained.pipeline_latents import paints_from, pixel_factor
from genzoo.pretrained.pipeline_step import predicted, remember_prompts, tokenizers_of
from genzoo.pretrained.pipeline_text import load_pipeline, reads


class PipelineConceptModel(nn.Module):
    """Predicts what the base's own pipeline predicts, under prompts that may hold the new words.

    Parameters with gradients: `to_k.weight` and `to_v.weight` of the text, whose biases stay the base's, and
    one row for each new word below each text encoder's frozen table.   read_dtype: of the frozen weights of
    text encoders and autoencoder.
    """

    freeze_mode = "crossattn_kv"

    def __init__(
        self,
        base: str,
        *,
        modifier_tokens: Sequence[str] = (),
        phrases: Sequence[str] = (),
        initializer_tokens: Sequence[str | int] = RARE_TOKENS,
        concept: ConceptDelta | None = None,
        any_base: bool = False,
        gradient_checkpointing: bool = False,
        read_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.source = base
        self.modifier_tokens, self.phrases = tuple(modifier_tokens), tuple(phrases)
        check_phrases(self.modifier_tokens, self.phrases)
        self.pipeline: Any = load_pipeline(base_folder(base))
        _check_read(self.pipeline, self.modifier_tokens)
        pairs = tokenizers_of(self.pipeline)
        self.transformer = self.pipeline.transformer
        self.text_encoders = nn.ModuleList(encoder for _, encoder in pairs)
        for module in (self.transformer, *self.text_encoders, self.pipeline.vae):
            module.requires_grad_(False)
        if gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()
        layers = {name: self.transformer.get_submodule(name) for name in projections(self.transformer)}
        self.trained = {f"{name}.weight": layer.weight.requires_grad_() for name, layer in layers.items()}
        self.base_fingerprint = fingerprint(self.trained)
        if concept is not None:
            self._load(concept, any_base=any_base)
        self.embeddings = tuple(
            extend_encoders(
                [tokenizer for tokenizer, _ in pairs],
                [encoder for _, encoder in pairs],
                self.modifier_tokens,
                initializers=initializer_tokens,
                rows=None if concept is None else concept.tokens,
            )
        )
        for reader in (*self.text_encoders, self.pipeline.vae):
            round_frozen(reader, read_dtype)
        rounded = read_dtype != torch.float32
        if rounded:
            paints_from(self.pipeline.vae, read_dtype)
        remember_prompts(self.pipeline, unless=self.modifier_tokens, widened=rounded)

    def train(self, mode: bool = True) -> PipelineConceptModel:
        """Always as it samples: dropout in frozen text encoders would be noise that no seed gives back."""
        return super().train(False)

    @property
    def options(self) -> dict[str, Any]:
        """Of the pipeline's call: cleaning takes words in <...> for HTML."""
        return {"clean_caption": False} if self.modifier_tokens else {}

    def forward(self, x_t: Tensor, levels: Tensor, captions: Sequence[str], *, side: int) -> Tensor:
        """What the scheduler would be handed for each sample; one after the other, as each has a level of its
        own.   x_t: (b, ...).   levels: (b,), the scheduler's timesteps.   side: of the pictures in pixels.
        """
        rows = [
            predicted(self.pipeline, x, level, caption, height=side, width=side, **self.options)
            for x, level, caption in zip(x_t.split(1), levels, captions, strict=True)
        ]
        return torch.cat(rows)

    @property
    def pixel_factor(self) -> int:
        """Pixels along one side of a latent."""
        return pixel_factor(self.pipeline)

    def named_words(self, prompt: str) -> list[str]:
        """Which of the new words a prompt holds."""
        return named_in(prompt, self.modifier_tokens)

    def delta(self, **notes: Any) -> ConceptDelta:
        """What was taught, as a concept of its own; the weights are copied."""
        return delta_of(
            self.trained,
            {
                token: [embedding.rows[index] for embedding in self.embeddings]
                for index, token in enumerate(self.modifier_tokens)
            },
            phrases=self.phrases,
            base=self.source,
            base_fingerprint=self.base_fingerprint,
            notes=notes,
        )

    @torch.no_grad()
    def _load(self, concept: ConceptDelta, *, any_base: bool) -> None:
        check_fits(concept, {name: tuple(value.shape) for name, value in self.trained.items()})
        if not any_base:
            check_base(concept, self.trained, self.base_fingerprint)
        for name in concept.names:
            self.trained[name].copy_(concept.full_weight(name, self.trained[name]).to(self.trained[name]))


def _check_read(pipeline: Any, tokens: Sequence[str]) -> None:
    lost = [token for token in tokens if not reads(pipeline, token)]
    if lost:
        raise UsageError(
            f"the base does not read the word {lost[0]}",
            why=f"{type(pipeline).__name__} makes capitals small letters before a text is read",
            fix=f"teach it under a word in small letters, such as {lost[0].lower()}",
        )

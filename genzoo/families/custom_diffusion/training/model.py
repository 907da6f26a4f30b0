"""The trainable model: a frozen text-to-image base of which cross-attention and a few word rows move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.model_state import frozen_digest
from genzoo.families.custom_diffusion.files.apply import check_base, check_fits
from genzoo.families.custom_diffusion.files.base_weights import fingerprint
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.files.weight_names import is_cross_attention
from genzoo.families.custom_diffusion.training.bases import is_taught_transformer
from genzoo.families.custom_diffusion.training.pipeline_model import PipelineConceptModel
from genzoo.families.custom_diffusion.training.taught import check_phrases, delta_of, named_in
from genzoo.families.custom_diffusion.training.tokens import RARE_TOKENS, extend_encoders
from genzoo.families.custom_diffusion.training.trainable import (
    choose_trainable,
    round_frozen,
    stop_first_token_in,
)
from genzoo.nn.resting import Resting
from genzoo.pretrained.text_features import TextFeatures, concatenate
from genzoo.pretrained.text_to_image import TextToImageParts, load_parts, predict

READ_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def custom_diffusion(
    base_model: str,
    *,
    modifier_tokens: Sequence[str] = (),
    phrases: Sequence[str] = (),
    freeze_mode: str = "crossattn_kv",
    initializer_tokens: Sequence[str | int] = RARE_TOKENS,
    concept: str | None = None,
    any_base: bool = False,
    gradient_checkpointing: bool = False,
    read_precision: Literal["fp32", "bf16"] = "fp32",
    offload: bool = False,
) -> ConceptModel | PipelineConceptModel:
    """A base in diffusers' layout (folder or hub id), ready to learn concepts; the base is never written.

    modifier_tokens: new words, such as <new1>.   phrases: what each concept is called in prompts, such as
    "<new1> cat"; kept in the concept's file, and what a merge holds on to.   initializer_tokens: whose
    embeddings the new words begin with.   freeze_mode: what of the base moves, "crossattn_kv", "crossattn" or
    "all", whose result is no concept file but the run itself.   concept: a file to begin with, which brings
    its own tokens and phrases; any_base accepts one of another base.   gradient_checkpointing: less memory,
    slower steps.   read_precision: of what reads texts and pictures and is never trained:
    "bf16" keeps text encoders and autoencoder in half the memory, without copies in a run under
    bf16; new words' rows stay float32.   offload: on a GPU, keep text encoders and autoencoder in the host's
    memory but while they read; texts with new words are read again in the backward pass. The same losses.
    """
    if read_precision not in READ_PRECISIONS:
        raise UsageError(f"read_precision={read_precision!r} is not known", fix=", ".join(READ_PRECISIONS))
    given = read_concept(concept) if concept else None
    if given is not None:
        modifier_tokens, phrases = list(given.tokens), given.phrases or phrases
    if is_taught_transformer(base_model, freeze_mode):
        if offload:
            raise UsageError(
                "model.offload is of bases with a UNet",
                where=base_model,
                why="the pipeline of a transformer computes where the first of its models lies",
                fix="leave it out; model.read_precision=bf16 halves its text encoders and autoencoder",
            )
        return PipelineConceptModel(
            base_model,
            modifier_tokens=modifier_tokens,
            phrases=phrases,
            initializer_tokens=initializer_tokens,
            concept=given,
            any_base=any_base,
            gradient_checkpointing=gradient_checkpointing,
            read_dtype=READ_PRECISIONS[read_precision],
        )
    parts = load_parts(base_model, codec_precision=read_precision)
    if gradient_checkpointing:
        parts.unet.enable_gradient_checkpointing()
    return ConceptModel(
        parts,
        modifier_tokens=modifier_tokens,
        phrases=phrases,
        freeze_mode=given.freeze_mode if given is not None else freeze_mode,
        initializer_tokens=initializer_tokens,
        concept=given,
        any_base=any_base,
        read_precision=read_precision,
        offload=offload,
    )


class ConceptModel(nn.Module):
    """Predicts what the base predicts, under prompts that may hold the new words.

    Parameters with gradients: the chosen weights of the UNet (whole matrices, as the official code trains
    them), and `rows`, one per new word, below each encoder's frozen token table. Everything else of the base
    is frozen; a checkpoint keeps it as a hash only.
    """

    def __init__(
        self,
        parts: TextToImageParts,
        *,
        modifier_tokens: Sequence[str] = (),
        phrases: Sequence[str] = (),
        freeze_mode: str = "crossattn_kv",
        initializer_tokens: Sequence[str | int] = RARE_TOKENS,
        concept: ConceptDelta | None = None,
        any_base: bool = False,
        read_precision: str = "fp32",
        offload: bool = False,
    ) -> None:
        super().__init__()
        self._digest: str | None = None
        self.modifier_tokens, self.phrases = tuple(modifier_tokens), tuple(phrases)
        check_phrases(self.modifier_tokens, self.phrases)
        self.parts = parts
        parts.freeze()
        self.unet, self.text_encoders = parts.unet, nn.ModuleList(parts.text_encoders)
        self.freeze_mode = freeze_mode
        choose_trainable(self.unet, freeze_mode)
        current = {name: value for name, value in self.unet.named_parameters() if is_cross_attention(name)}
        self.base_fingerprint = fingerprint(current)
        if concept is not None:
            self._load(concept, current, any_base=any_base)
        embeddings = extend_encoders(
            parts.tokenizers,
            parts.text_encoders,
            modifier_tokens,
            initializers=initializer_tokens,
            rows=None if concept is None else concept.tokens,
        )
        self.embeddings = tuple(embeddings)  # registered below their encoders
        round_frozen(self.text_encoders, READ_PRECISIONS[read_precision])
        # texts without new words are read outside the step, and so outside autocast
        self.uncast = tuple(f"text_encoders.{name}" for name, _ in self.text_encoders.named_parameters())
        stop_first_token_in(self.unet)
        if offload:
            self._offload()

    def forward(
        self,
        x_t: Tensor,
        timesteps: Tensor,
        ids: Tensor | None = None,
        hidden: Tensor | None = None,
        pooled: Tensor | None = None,
    ) -> Tensor:
        """The UNet's output for the rows with `ids`, then for those whose features are known already.

        x_t: (b, c, h, w).   ids: (b_1, e, l) for e text encoders.   hidden, pooled: (b_2, l, d), (b_2, p).
        """
        texts = [] if ids is None else [self.parts.encode(ids.unbind(1))]
        texts += [] if hidden is None else [TextFeatures(hidden, pooled)]
        return predict(self.unet, x_t, timesteps, concatenate(texts), pixel_factor=self.parts.pixel_factor)

    def example_inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Arguments of `forward` for one sample: noise, a time, and an empty text."""
        size, like = self.unet.config.sample_size, next(self.unet.parameters())
        height, width = (size, size) if isinstance(size, int) else size
        x_t = like.new_zeros(1, self.unet.config.in_channels, height, width)
        return x_t, x_t.new_zeros(1).long(), self.token_ids([""]).to(x_t.device)

    def token_ids(self, texts: Sequence[str], *, chunks: int = 1) -> Tensor:
        """(b, e, k l) for e text encoders, of texts as they stand, in k chunks, `chunks` at least."""
        return torch.stack(self.parts.token_ids(texts, chunks=chunks), dim=1)

    @property
    def source(self) -> str:
        """Where the base lies, or its hub id."""
        return self.parts.source

    def named_words(self, prompt: str) -> list[str]:
        """Which of the new words a prompt holds."""
        return named_in(prompt, self.modifier_tokens)

    def text_encoders_digest(self) -> str:
        """One hash over the text encoders' frozen weights, whatever their new words are; computed once."""
        if self._digest is None:
            self._digest = str(frozen_digest(self.text_encoders))
        return self._digest

    @torch.no_grad()
    def delta(self, **notes: Any) -> ConceptDelta:
        """What was taught, as a concept of its own; the weights are copied.

        Raises UsageError where all weights were trained.
        """
        if self.freeze_mode == "all":
            raise UsageError(
                "a concept is a change of cross-attention, and this run changed all weights",
                fix="sample from the run itself, or train with model.freeze_mode=crossattn_kv",
            )
        return delta_of(
            {name: value for name, value in self.unet.named_parameters() if value.requires_grad},
            {
                token: [embedding.rows[index] for embedding in self.embeddings]
                for index, token in enumerate(self.modifier_tokens)
            },
            phrases=self.phrases,
            base=self.parts.source,
            base_fingerprint=self.base_fingerprint,
            notes=notes,
        )

    def to(self, *where: Any, **options: Any) -> ConceptModel:
        """Move what is read all the time; what rests stays in the host's memory."""
        super().to(*where, **options)
        if self.parts.resting is not None:
            self.parts.resting.rest(next(self.unet.parameters()).device)
        return self

    def _offload(self) -> None:
        resting = Resting(self.parts.text_encoders)
        self.parts = replace(self.parts, resting=resting)
        if self.parts.vae is not None:
            self.parts.vae.offload()
        # several processes have the same base: what is frozen needs no exchange, and lies elsewhere
        frozen = [name for name, one in self.text_encoders.named_parameters() if not one.requires_grad]
        self._ddp_params_and_buffers_to_ignore = [f"text_encoders.{name}" for name in frozen]

    @torch.no_grad()
    def _load(self, concept: ConceptDelta, current: dict[str, nn.Parameter], *, any_base: bool) -> None:
        check_fits(concept, {name: tuple(value.shape) for name, value in current.items()})
        if not any_base:
            check_base(concept, current, self.base_fingerprint)
        for token, rows in concept.tokens.items():
            if len(rows) != len(self.parts.text_encoders):
                raise WeightsError(
                    f"{token} has embeddings for {len(rows)} text encoders; "
                    f"the base has {len(self.parts.text_encoders)}"
                )
        for name in concept.names:
            value = concept.full_weight(name, current[name])
            current[name].copy_(value.to(current[name]))

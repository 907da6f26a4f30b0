"""Training and sampling of concepts on a frozen text-to-image model (Custom Diffusion, Section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LossOutput
from genzoo.diffusion.guidance import Guidance
from genzoo.diffusion.precision import DTYPES, Arithmetic, at_precision
from genzoo.diffusion.process import q_sample
from genzoo.diffusion.prompted import (
    DEFAULT_SAMPLER,
    prompted_output,
    sample_prompts,
    schedule_from,
    training_target,
)
from genzoo.diffusion.sections import chosen_precision, merge_sampler
from genzoo.families.custom_diffusion.training.caches import RememberedMoments, RememberedText
from genzoo.families.custom_diffusion.training.losses import concept_loss
from genzoo.families.custom_diffusion.training.model import ConceptModel
from genzoo.families.custom_diffusion.training.pipeline_model import PipelineConceptModel
from genzoo.families.custom_diffusion.training.pipeline_task import PipelineConceptTask
from genzoo.families.custom_diffusion.training.shared import TeachesConcepts, masks, require_words
from genzoo.families.custom_diffusion.training.shelf import Shelf
from genzoo.nn.casting import in_float32


class ConceptTask(TeachesConcepts):
    """Trains a ConceptModel; the tasks of other bases are asked for through it (`kind_for`)."""

    trains = ConceptModel
    model: ConceptModel
    sampling_options = (Guidance, Arithmetic)
    run_precision = "fp32"

    @classmethod
    def kind_for(cls, model: nn.Module) -> type[TeachesConcepts]:
        """The task that trains a model: of a base with a UNet, or of one with a transformer."""
        return PipelineConceptTask if isinstance(model, PipelineConceptModel) else cls

    def _begin(self, sampler: Mapping[str, Any] | None, cache: str | None) -> None:
        self.parts = self.model.parts
        self.sampler = merge_sampler(DEFAULT_SAMPLER if sampler is None else sampler, {})
        self.diffusion = schedule_from(self.parts.scheduler)
        shelf = None if cache is None else Shelf(cache)
        self._text = RememberedText(
            self.parts.encode_captions, shelf=shelf, encoder=self.model.text_encoders_digest
        )
        self._moments = None if self.parts.vae is None else RememberedMoments(self.parts.vae, shelf=shelf)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the base and its autoencoder."""
        self.model.to(device=device, dtype=dtype)
        if self.parts.vae is not None:
            self.parts.vae.to(device, dtype)

    @torch.no_grad()
    def prepare_batch(self, batch: Batch, generator: SampleStreams) -> Batch:
        """Concept rows first, class rows below: "latents", "noise" (b, c, h, w), "timesteps" (b,), "mask"
        (b, 1, h, w), and of the text "ids" (b_1, e, l) where new words need gradients, "hidden" and "pooled"
        of the others.
        """
        device = next(self.model.parameters()).device
        groups = [("pixels", "key", "captions"), ("class_pixels", "class_key", "class_captions")]
        groups = [names for names in groups if names[0] in batch]
        latents = [self._latents(batch[p].to(device), batch[k], generator) for p, k, _ in groups]
        noise = [generator.randn_like(rows) for rows in latents]
        timesteps = [generator.randint(len(self.diffusion.schedule.betas), device) for _ in groups]
        mask = masks(batch["box"], latents[0], int(batch["pixels"].shape[-1]))
        prepared: dict[str, Any] = {
            "latents": torch.cat(latents),
            "noise": torch.cat(noise),
            "timesteps": torch.cat(timesteps),
            "mask": torch.cat([mask, *(torch.ones_like(rows[:, :1]) for rows in latents[1:])]),
            "num_instances": len(latents[0]),
        }
        known = [caption for _, _, captions in groups[1:] for caption in batch[captions]]
        require_words(self.model, batch["captions"])
        chunks = max(self.parts.num_chunks(one, weighted=False) for one in [*batch["captions"], *known])
        if self.model.modifier_tokens:
            prepared["ids"] = self.model.token_ids(batch["captions"], chunks=chunks).to(device)
        else:
            known = [*batch["captions"], *known]
        if known:
            text = self._text(known, prepared["latents"], chunks=chunks)
            prepared |= {"hidden": text.hidden, "pooled": text.pooled}
        return prepared

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams | None = None) -> LossOutput:
        """`losses.concept_loss` of a prepared batch; a function of the batch alone."""
        x_0, noise, timesteps = batch["latents"], batch["noise"], batch["timesteps"]
        x_t = q_sample(x_0, noise, timesteps, self.diffusion.schedule)
        text = {name: batch[name] for name in ("ids", "hidden", "pooled") if batch.get(name) is not None}
        output = model(x_t, timesteps, **text)
        target = training_target(x_0, noise, timesteps, self.diffusion)
        loss, prior = concept_loss(
            output, target, batch["mask"], num_instances=batch["num_instances"], **self.options
        )
        return LossOutput(loss, {"loss": loss.detach(), "prior": prior.detach()})

    @torch.no_grad()
    def sample(
        self, model: nn.Module, conditions: Batch, generator: SampleStreams, **overrides: Any
    ) -> Tensor:
        """Pixels (n, 3, h, w) in [-1, 1], one for each stream; overrides: steps=50, eta=0.0, ..."""
        given: Any = model
        sampler = merge_sampler(self.sampler, overrides)
        with self._readable(sampler):
            return sample_prompts(
                given.parts,
                self.diffusion,
                conditions["prompts"],
                generator,
                negative_prompt=conditions["negative_prompts"][0],
                sampler=sampler,
                run_precision=self.run_precision,
            )

    @torch.no_grad()
    def sampling_pass(self, num: int) -> None:
        """See `core.contracts.tasks.SamplesRounded`."""
        like = next(self.model.unet.parameters())
        x_t = like.new_empty(num, *self.parts.latent_shape, dtype=torch.float32)
        ids = torch.zeros(num, self.parts.max_length, dtype=torch.long, device=x_t.device)
        encoders = len(self.parts.text_encoders)
        text = self.parts.encode([ids] * encoders).to(x_t)
        negative = self.parts.encode([ids[:1]] * encoders).to(x_t).expand(num)  # one text for all
        timesteps = torch.zeros(num, dtype=torch.long, device=x_t.device)

        def once(network: Any, *_: Any) -> Tensor:
            found: Tensor = network(x_t, timesteps)
            return found

        precision = chosen_precision(self.sampler, self.run_precision)
        with self._readable(self.sampler):
            at_precision(once, precision)(
                lambda x, at: prompted_output(self.parts, x, at, text, negative, 1.5), x_t
            )
        if self.parts.vae is not None:
            self.parts.vae.decode(x_t)

    def _readable(self, sampler: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Frozen weights in 16 bits are read so under autocast, and widened for a sampler in float32."""
        if chosen_precision(sampler, self.run_precision) in DTYPES:
            return nullcontext()
        return in_float32(self.model.unet)

    def _latents(self, pixels: Tensor, keys: Sequence[str], generator: SampleStreams) -> Tensor:
        if self.parts.vae is None or self._moments is None:
            return pixels
        return self.parts.vae.sample_moments(self._moments(pixels, keys), generator)

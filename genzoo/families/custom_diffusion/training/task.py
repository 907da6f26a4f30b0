"""Training and sampling of concepts on a frozen text-to-image model (Custom Diffusion, Section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import UsageError, unused_options
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LatentCodec, LossOutput
from genzoo.diffusion.guidance import Guidance
from genzoo.diffusion.precision import Arithmetic
from genzoo.diffusion.process import q_sample
from genzoo.diffusion.prompted import DEFAULT_SAMPLER, sample_prompts, schedule_from, training_target
from genzoo.diffusion.sections import merge_sampler
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.clients import export_for
from genzoo.families.custom_diffusion.files.concept import concept_bytes
from genzoo.families.custom_diffusion.files.write_layouts import write_concept
from genzoo.families.custom_diffusion.training.caches import RememberedMoments, RememberedText
from genzoo.families.custom_diffusion.training.losses import concept_loss
from genzoo.families.custom_diffusion.training.model import ConceptModel
from genzoo.families.custom_diffusion.training.pipeline_model import PipelineConceptModel
from genzoo.families.custom_diffusion.training.pipeline_task import PipelineConceptTask
from genzoo.families.custom_diffusion.training.shared import (
    CONDITIONS,
    check_prior,
    masks,
    own_prompts,
    prompts_for,
    require_words,
)
from genzoo.families.custom_diffusion.training.shelf import Shelf


class ConceptTask:
    """Trains a ConceptModel on pictures of concepts, beside pictures that keep their classes as they were.

    prior: how the second kind counts, "plain" or "masked", and prior_loss_weight, see `losses.concept_loss`.
    normalize_mask_channels: divide the concept's term by the channels too.   sampler: a section such as
    {"name": "ddim", "steps": 200, "eta": 1.0, "guidance_scale": 6.0}.   prompts: what previews show; each
    phrase of the model when left out.   cache: a folder that keeps features of texts without new words and
    moments of pictures that never change, for the runs after this one.   Batches are those of
    `dataset.ConceptImages`.
    """

    sampling_options = (Guidance, Arithmetic)
    run_precision = "fp32"

    def __init__(
        self,
        model: nn.Module,
        *,
        codec: LatentCodec | None = None,
        sampler: Mapping[str, Any] | None = None,
        prior: str = "plain",
        prior_loss_weight: float = 1.0,
        normalize_mask_channels: bool = False,
        prompts: Sequence[str] = (),
        cache: str | None = None,
    ) -> None:
        if not isinstance(model, ConceptModel):
            raise UsageError(f"this task trains concepts, not a {type(model).__name__}")
        check_prior(prior, codec)
        self.model, self.parts = model, model.parts
        self.sampler = merge_sampler(DEFAULT_SAMPLER if sampler is None else sampler, {})
        self.diffusion = schedule_from(model.parts.scheduler)
        self.options: dict[str, Any] = {
            "prior": prior,
            "prior_loss_weight": prior_loss_weight,
            "normalize_mask_channels": normalize_mask_channels,
        }
        self.prompts = tuple(prompts) or own_prompts(model)
        shelf = None if cache is None else Shelf(cache)
        self._text = RememberedText(
            self.parts.encode_captions, shelf=shelf, encoder=model.text_encoders_digest
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

    def conditions(
        self,
        num: int,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | None = None,
        any_prompt: bool = False,
        **unknown: Any,
    ) -> Batch:
        """Prompts for `num` samples: one for all, or several in turn; the task's own when left out.

        any_prompt: allow prompts without a word or phrase that was taught, to see what else has changed.
        """
        if unknown:
            raise unused_options(unknown, CONDITIONS)
        return prompts_for(self.model, num, prompt, negative_prompt, any_prompt, own=self.prompts)

    @torch.no_grad()
    def sample(
        self, model: nn.Module, conditions: Batch, generator: SampleStreams, **overrides: Any
    ) -> Tensor:
        """Pixels (n, 3, h, w) in [-1, 1], one for each stream; overrides: steps=50, eta=0.0, ..."""
        given: Any = model
        return sample_prompts(
            given.parts,
            self.diffusion,
            conditions["prompts"],
            generator,
            negative_prompt=conditions["negative_prompts"][0],
            sampler=merge_sampler(self.sampler, overrides),
            run_precision=self.run_precision,
        )

    def export(
        self, path: str | Path, *, layout: str | None = None, half: bool = False, **notes: Any
    ) -> Path:
        """Write what was taught as a file of its own, in one of `export.LAYOUTS`."""
        base = BaseWeights(self.parts.source) if layout in ("lora", "kohya") else None
        dtype = torch.float16 if half else None
        return write_concept(
            self.model.delta(**notes), path, layout=layout or "genzoo", base=base, dtype=dtype
        )

    def export_for(self, path: str | Path, *, client: str, **options: Any) -> tuple[Path, list[str]]:
        """Write the files of one of `clients.CLIENTS` into a new folder, and say how they are used."""
        base = BaseWeights(self.parts.source)
        return export_for(self.model.delta(), path, client=client, base=base, **options)

    def file_bytes(self, *, half: bool = False, **notes: Any) -> bytes:
        """The content of that file in our own layout."""
        return concept_bytes(self.model.delta(**notes), dtype=torch.float16 if half else None)

    def _latents(self, pixels: Tensor, keys: Sequence[str], generator: SampleStreams) -> Tensor:
        if self.parts.vae is None or self._moments is None:
            return pixels
        return self.parts.vae.sample_moments(self._moments(pixels, keys), generator)


def concept_task(
    model: nn.Module,
    *,
    codec: LatentCodec | None = None,
    sampler: Mapping[str, Any] | None = None,
    prior: str = "plain",
    prior_loss_weight: float = 1.0,
    normalize_mask_channels: bool = False,
    prompts: Sequence[str] = (),
    cache: str | None = None,
) -> ConceptTask | PipelineConceptTask:
    """The task of a base with a UNet, `ConceptTask`, or of one with a transformer, `PipelineConceptTask`.

    prior: how class pictures count, "plain" or "masked", and prior_loss_weight, see `losses.concept_loss`.
    normalize_mask_channels: divide the concept's term by the channels too.   sampler: a section such as
    {"name": "ddim", "steps": 200, "eta": 1.0, "guidance_scale": 6.0}; of a transformer its steps and
    guidance_scale count, beside the base's own scheduler.   prompts: what previews show; each phrase of the
    model when left out.   cache: a folder that keeps features of texts without new words and moments of
    pictures that never change, for the runs after this one; of a base with a UNet.
    """
    kind = PipelineConceptTask if isinstance(model, PipelineConceptModel) else ConceptTask
    return kind(
        model,
        codec=codec,
        sampler=sampler,
        prior=prior,
        prior_loss_weight=prior_loss_weight,
        normalize_mask_channels=normalize_mask_channels,
        prompts=prompts,
        cache=cache,
    )


# what is asked of a task's class before it is built, such as its conditions and exports, is asked of this
vars(concept_task).update({name: member for name, member in vars(ConceptTask).items() if name[0] != "_"})

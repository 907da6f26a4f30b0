"""Training and sampling of concepts on a base with a transformer, through its own pipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import NonFiniteError, UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LossOutput
from genzoo.families.custom_diffusion.training.losses import concept_loss
from genzoo.families.custom_diffusion.training.noise_paths import path_of
from genzoo.families.custom_diffusion.training.pipeline_model import PipelineConceptModel
from genzoo.families.custom_diffusion.training.shared import TeachesConcepts, masks, require_words
from genzoo.pretrained.pipeline_latents import empty_latents, latents_of, moments, own_size
from genzoo.pretrained.pipeline_step import ONE_FRAME, accepted, cannot_run

STEPS, GUIDANCE = 20, 4.5


class PipelineConceptTask(TeachesConcepts):
    """Trains a PipelineConceptModel. Pictures are noised as the models of the base's scheduler are
    (`noise_paths`).
    """

    trains, trained = PipelineConceptModel, "concepts of pipelines"
    model: PipelineConceptModel

    def _begin(self, sampler: Mapping[str, Any] | None, cache: str | None) -> None:
        if cache is not None:
            raise UsageError(
                "task.cache is of bases with a UNet",
                fix="leave it out: texts without new words and pictures that stay are read once a run",
            )
        self.pipeline = self.model.pipeline
        given = dict(sampler or {})
        self.steps = int(given.get("steps", STEPS))
        self.guidance_scale = float(given.get("guidance_scale", GUIDANCE))
        self.path = path_of(self.pipeline.scheduler.config)
        self._moments: dict[str, Tensor] = {}

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the whole pipeline."""
        self.model.to(device=device, dtype=dtype)
        self.pipeline.vae.to(device=device, dtype=dtype)

    @torch.no_grad()
    def prepare_batch(self, batch: Batch, generator: SampleStreams) -> Batch:
        """Concept rows first, class rows below: "latents", "noise" (b, ...), "levels" (b,), "mask" (b, 1, h,
        w), "captions" and "side", of the pictures in pixels.
        """
        groups = [("pixels", "key", "captions"), ("class_pixels", "class_key", "class_captions")]
        groups = [names for names in groups if names[0] in batch]
        latents = [self._latents(batch[p], batch[k], generator) for p, k, _ in groups]
        side = int(batch["pixels"].shape[-1])
        noise = [generator.randn_like(rows) for rows in latents]
        levels = [self.path.levels(generator) for _ in groups]
        require_words(self.model, batch["captions"])
        device = self.pipeline.vae.device
        grid = latents[0].new_zeros(len(latents[0]), 1, *[side // self.model.pixel_factor] * 2)
        mask = masks(batch["box"], grid, side)
        whole = [torch.ones_like(mask[:1]).expand(len(rows), -1, -1, -1) for rows in latents[1:]]
        return {
            "latents": torch.cat(latents),
            "noise": torch.cat(noise),
            "levels": torch.cat(levels).to(device),
            "mask": torch.cat([mask, *whole]),
            "captions": [caption for _, _, captions in groups for caption in batch[captions]],
            "num_instances": len(latents[0]),
            "side": side,
        }

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams | None = None) -> LossOutput:
        """`losses.concept_loss` of a prepared batch; a function of the batch alone."""
        x_0, noise, levels = batch["latents"], batch["noise"], batch["levels"]
        x_t = self.path.noised(x_0, noise, levels)
        output = model(x_t, levels, batch["captions"], side=batch["side"])
        target = self.path.target(x_0, noise, levels)
        mask = batch["mask"]
        loss, prior = concept_loss(
            _as_pictures(output, mask),
            _as_pictures(target, mask),
            mask,
            num_instances=batch["num_instances"],
            **self.options,
        )
        return LossOutput(loss, {"loss": loss.detach(), "prior": prior.detach()})

    @torch.no_grad()
    def sample(
        self,
        model: nn.Module,
        conditions: Batch,
        generator: SampleStreams,
        *,
        steps: int | None = None,
        guidance_scale: float | None = None,
        size: int | None = None,
    ) -> Tensor:
        """Pixels (n, 3, h, w) in [-1, 1], one for each stream, each by a call of the pipeline.

        size: of the pictures, the base's own when left out.
        """
        side = own_size(self.pipeline) if size is None else size
        latents = generator.randn_like(empty_latents(self.pipeline, len(generator), side))
        options = {
            "num_inference_steps": self.steps if steps is None else steps,
            "guidance_scale": self.guidance_scale if guidance_scale is None else guidance_scale,
            "height": side,
            "width": side,
            "use_resolution_binning": False,
            "output_type": "pt",
            **ONE_FRAME,
            **self.model.options,
        }
        negative = conditions["negative_prompts"][0]
        options |= {} if negative is None else {"negative_prompt": negative}
        rows = [
            self._drawn(prompt, latents[i : i + 1], generator.generators[i], options)
            for i, prompt in enumerate(conditions["prompts"])
        ]
        return torch.cat(rows)

    def _drawn(
        self, prompt: str, latents: Tensor, stream: torch.Generator, options: dict[str, Any]
    ) -> Tensor:
        """(1, 3, h, w); of a clip its first frame."""
        call = type(self.pipeline).__call__
        given = {**options, "latents": latents, "generator": stream}
        try:
            found = self.pipeline(prompt=prompt, return_dict=False, **accepted(call, given))[0]
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise cannot_run(self.pipeline, error) from error
        picture: Tensor = (found[:, 0] if found.ndim == 5 else found).float()
        if not bool(torch.isfinite(picture).all()):
            raise NonFiniteError("the base's pipeline gives NaN or infinite pixels", where=prompt[:60])
        return (2 * picture - 1).clamp(-1, 1)

    def _latents(self, pixels: Tensor, keys: Sequence[str], generator: SampleStreams) -> Tensor:
        """Each picture is encoded alone, and once where its key names it."""
        rows = []
        for picture, key in zip(pixels.split(1), keys, strict=True):
            found = self._moments.get(key) if key else None
            if found is None:
                found = moments(self.pipeline, picture.to(self.pipeline.vae.device)).float()
                if key:
                    self._moments[key] = found.cpu()
            rows.append(found.to(self.pipeline.vae.device))
        return latents_of(self.pipeline, torch.cat(rows), generator)


def _as_pictures(rows: Tensor, mask: Tensor) -> Tensor:
    """Latents of one frame, or a row of tokens (b, h w, c), as (b, c, h, w) beside a mask (b, 1, h, w)."""
    if rows.ndim == 3:
        rows = rows.movedim(1, 2)
    return rows.reshape(len(rows), -1, *mask.shape[-2:])

"""Training a text-to-image model on captioned pictures, text encoder and UNet together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LatentCodec, LossOutput
from genzoo.diffusion.captions import (
    check_captions,
    prompt_conditions,
    training_captions,
)
from genzoo.diffusion.guidance import Guidance
from genzoo.diffusion.latents import batch_latents, model_latent_shape
from genzoo.diffusion.precision import Arithmetic
from genzoo.diffusion.process import q_sample
from genzoo.diffusion.prompted import DEFAULT_SAMPLER, sample_prompts, schedule_from, training_target
from genzoo.diffusion.sections import merge_sampler
from genzoo.nn.evaluating import evaluating

DEFAULT_SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 2e-2,
    "prediction_type": "v_prediction",
}


class TextToImageTask:
    """Trains a model (x_t, timesteps, input_ids) -> noise or v, such as TextToImageModel, on latents.

    codec: None trains on pixels.   scheduler: entries of a diffusers scheduler_config.json that differ from
    DEFAULT_SCHEDULER.   caption_dropout: probability of an empty caption in training, which guidance needs.
    prompts: what is sampled, in turn, when nobody asks for a prompt, such as in previews.
    Batches hold "pixels" (b, c, h, w) in [-1, 1] or "moments" from a latent cache, and "captions".
    """

    sampling_options = (Guidance, Arithmetic)
    run_precision = "fp32"

    def __init__(
        self,
        model: nn.Module,
        *,
        codec: LatentCodec | None = None,
        sampler: Mapping[str, Any] | None = None,
        scheduler: Mapping[str, Any] | None = None,
        caption_dropout: float = 0.1,
        prompts: Sequence[str] = ("",),
    ) -> None:
        check_captions(caption_dropout, prompts)
        self.model: Any = model
        self.codec = codec
        self.scheduler = {**DEFAULT_SCHEDULER, **(scheduler or {})}
        self.diffusion = schedule_from(self.scheduler)
        self.sampler = merge_sampler(DEFAULT_SAMPLER if sampler is None else sampler, {})
        self.caption_dropout, self.prompts = caption_dropout, list(prompts)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the model and the codec; dtype goes to the codec."""
        self.model.to(device)
        if self.codec is not None:
            self.codec.to(device, dtype)

    @torch.no_grad()
    def prepare_batch(self, batch: Batch, generator: SampleStreams) -> Batch:
        """Latents, token ids with some captions dropped, timesteps and noise, from each sample's own stream.

        Returns "latents", "noise" (b, c, h, w), "timesteps" (b,) and "input_ids" (b, 77).
        """
        prepared = self._clean(batch, generator, self.caption_dropout)
        latents = prepared["latents"]
        prepared["timesteps"] = generator.randint(self.diffusion.schedule.num_timesteps, latents.device)
        prepared["noise"] = generator.randn_like(latents)
        return prepared

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams | None = None) -> LossOutput:
        """Mean squared error of the noise or of v; a function of the prepared batch alone."""
        loss = self._squares(model, batch).mean()
        return LossOutput(loss, {"mse": loss.detach()})

    @torch.no_grad()
    def held_out_batch(self, batch: Batch, generator: SampleStreams, level: Tensor) -> Batch:
        """A prepared batch at given timesteps, every caption seen.   level: (b,) in [0, 1), noise first."""
        prepared = self._clean(batch, generator, 0.0)
        latents = prepared["latents"]
        prepared["timesteps"] = self.diffusion.schedule.timesteps_at(level).to(latents.device)
        prepared["noise"] = generator.randn_like(latents)
        return prepared

    def sample_losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Losses of a prepared batch, (b,)."""
        return self._squares(model, batch).flatten(1).mean(1)

    def level_density(self, level: Tensor) -> Tensor:
        """Training meets all timesteps alike."""
        return torch.ones_like(level)

    def _clean(self, batch: Batch, generator: SampleStreams, caption_dropout: float) -> dict[str, Any]:
        parameter = next(self.model.parameters())
        shape = model_latent_shape(self.model)
        latents = batch_latents(batch, self.codec, generator, shape, parameter.device).to(parameter.dtype)
        captions = training_captions(batch, caption_dropout, generator)
        return {"latents": latents, "input_ids": self.model.tokenize(captions).to(parameter.device)}

    def _squares(self, model: nn.Module, batch: Batch) -> Tensor:
        x_0, noise, timesteps = batch["latents"], batch["noise"], batch["timesteps"]
        x_t = q_sample(x_0, noise, timesteps, self.diffusion.schedule)
        output = model(x_t, timesteps, batch["input_ids"]).to(x_t.dtype)
        return (output - training_target(x_0, noise, timesteps, self.diffusion)).square()

    def conditions(
        self,
        num: int,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | None = None,
        **unknown: Any,
    ) -> Batch:
        """Prompts for `num` samples: one for all, or one for each; the task's own, in turn, when left out."""
        return prompt_conditions(num, prompt, negative_prompt, self.prompts, unknown)

    def sample(
        self, model: nn.Module, conditions: Batch, generator: SampleStreams, **overrides: Any
    ) -> Tensor:
        """Pixels (n, 3, h, w) in [-1, 1]. overrides: steps=50, sampler="ddim", guidance_scale=4.0, ..."""
        plain: Any = model
        with evaluating(model):
            return sample_prompts(
                plain.parts(self.codec, self.scheduler),
                self.diffusion,
                conditions["prompts"],
                generator,
                negative_prompt=next(iter(conditions.get("negative_prompts", [])), None),
                sampler=merge_sampler(self.sampler, overrides),
                run_precision=self.run_precision,
            )

    def export(
        self, path: str | Path, *, layout: str | None = None, half: bool = False, **notes: Any
    ) -> Path:
        """Write the model as a folder in diffusers' layout, the only one there is."""
        if layout not in (None, "diffusers"):
            raise UsageError(f"a text-to-image model has no layout {layout!r}", fix="use diffusers")
        plain: Any = self.model
        written: Path = plain.write(path, self.codec, self.scheduler, half=half)
        return written

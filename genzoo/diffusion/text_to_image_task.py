"""Training a text-to-image model on captioned pictures, text encoder and UNet together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import DataError, ShapeError, UsageError, unused_options
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LatentCodec, LossOutput
from genzoo.diffusion.guidance import Guidance
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

    sampling_options = (Guidance,)

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
        if not 0.0 <= caption_dropout < 1.0:
            raise UsageError(f"caption_dropout is a probability below 1, not {caption_dropout}")
        if not prompts:
            raise UsageError("prompts is empty", fix="name at least one, or leave it out")
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
        if "captions" not in batch:
            raise DataError("the data have no captions", why=f"a batch holds {', '.join(sorted(batch))}")
        parameter = next(self.model.parameters())
        latents = self._latents(batch, generator, parameter)
        dropped = (generator.rand() < self.caption_dropout).tolist()
        captions = ["" if drop else text for drop, text in zip(dropped, batch["captions"], strict=True)]
        return {
            "latents": latents,
            "input_ids": self.model.tokenize(captions).to(parameter.device),
            "timesteps": generator.randint(self.diffusion.schedule.num_timesteps, parameter.device),
            "noise": generator.randn_like(latents),
        }

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams | None = None) -> LossOutput:
        """Mean squared error of the noise or of v; a function of the prepared batch alone."""
        x_0, noise, timesteps = batch["latents"], batch["noise"], batch["timesteps"]
        x_t = q_sample(x_0, noise, timesteps, self.diffusion.schedule)
        output = model(x_t, timesteps, batch["input_ids"]).to(x_t.dtype)
        loss = (output - training_target(x_0, noise, timesteps, self.diffusion)).square().mean()
        return LossOutput(loss, {"mse": loss.detach()})

    def conditions(
        self,
        num: int,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | None = None,
        **unknown: Any,
    ) -> Batch:
        """Prompts for `num` samples: one for all, or one for each; the task's own, in turn, when left out."""
        if unknown:
            raise unused_options(unknown, ["prompt", "negative_prompt"])
        if prompt is None:
            prompts = [self.prompts[index % len(self.prompts)] for index in range(num)]
        else:
            prompts = [prompt] * num if isinstance(prompt, str) else list(prompt)
        if len(prompts) != num:
            raise UsageError(
                f"{len(prompts)} prompts for {num} samples", fix="pass one for each, or one for all"
            )
        rows = {"prompts": prompts}
        return rows if negative_prompt is None else rows | {"negative_prompts": [negative_prompt] * num}

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
                sampler=self.sampler,
                **overrides,
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

    def _latents(self, batch: Batch, generator: SampleStreams, like: Tensor) -> Tensor:
        if "moments" in batch and self.codec is not None:
            latents = self.codec.sample_moments(batch["moments"].to(like.device), generator)
        elif "pixels" in batch:
            pixels = batch["pixels"].to(like.device)
            latents = pixels if self.codec is None else self.codec.encode(pixels, generator)
        else:
            raise DataError("the batch has no pixels", why=f"it holds {', '.join(sorted(batch))}")
        expected = (self.model.in_channels, self.model.input_size, self.model.input_size)
        if tuple(latents.shape[1:]) != expected:
            raise ShapeError(
                f"latents are {tuple(latents.shape[1:])} but the model takes {expected}",
                fix="make the model's in_channels and input_size those of the codec's latents",
            )
        return latents.to(like.dtype)

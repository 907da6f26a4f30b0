"""The latent diffusion task: encode, diffuse, predict the noise; and back from noise to pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LatentCodec, LossOutput, mean_loss
from genzoo.diffusion.denoiser import Denoiser
from genzoo.diffusion.guidance import Guidance
from genzoo.diffusion.labels import checked_dropout, class_conditions, num_classes_of, sampling_labels
from genzoo.diffusion.latents import channel_axis_of, decoded, initial_noise, model_latent_shape
from genzoo.diffusion.precision import Arithmetic
from genzoo.diffusion.prepared import predict, prepared_samples
from genzoo.diffusion.process import Prediction, q_sample
from genzoo.diffusion.routing import build_routing
from genzoo.diffusion.schedule import NoiseSchedule
from genzoo.diffusion.sections import SHARED_OPTIONS, build_loss, build_sampler, build_schedule, merge_sampler
from genzoo.nn.evaluating import evaluating

DEFAULT_SAMPLER = {"name": "ddpm", "steps": 250}


class LatentDiffusionTask:
    """Trains a model (x_t, timesteps, class_labels) -> noise, or noise and variance, on latents of a codec.

    loss: a name, a section such as {"name": "hybrid"}, or a function like those of genzoo.diffusion.losses.
    codec: None trains on the pixels themselves.
    schedule: a name, a section, or a NoiseSchedule; linear over 1000 timesteps when left out.
    sampler: a section {"name": "ddpm", "steps": 250, "guidance_scale": 1.5, ...}.
    label_dropout: probability of hiding a label in training, which guidance needs.
    prediction: what the model predicts, "noise" or "x_0".
    latent_shape: of one sample; by default (in_channels, input_size, input_size) of the model, for a model
    of clips (num_frames, in_channels, input_size, input_size).
    routing: tokens that pass by some blocks in training, as in `FlowMatchingTask`.
    channel_axis: by default 1 for images (b, c, h, w), 2 for clips (b, f, c, h, w).

    Batches hold "pixels" (b, c, h, w) or (b, f, c, h, w) in [-1, 1] or "moments" from a latent cache, and
    "class_labels" (b,) for a model with num_classes. Clips may come with stills to train on as well,
    "image_pixels" (b, s, c, h, w), or "image_moments" from a cache, and "image_labels" (b, s).
    """

    sampling_options = (
        Guidance,
        Arithmetic,
    )  # what a recipe's sampler section holds beside the sampler's own options
    run_precision = "fp32"  # of the training; whoever builds the task from a recipe says another
    supplies = SHARED_OPTIONS  # options of a loss that this task sets itself

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: str | Mapping[str, Any] | Callable[..., Mapping[str, Tensor]] = "hybrid",
        codec: LatentCodec | None = None,
        schedule: str | Mapping[str, Any] | NoiseSchedule | None = None,
        sampler: Mapping[str, Any] | None = None,
        label_dropout: float = 0.1,
        prediction: Prediction = "noise",
        latent_shape: Sequence[int] | None = None,
        channel_axis: int | None = None,
        routing: Mapping[str, Any] | None = None,
    ) -> None:
        if prediction not in ("noise", "x_0"):
            raise UsageError(f"prediction is {prediction!r}", fix='use "noise" or "x_0"')
        self.model, self.codec = model, codec
        self.schedule = build_schedule(schedule)
        self.sampler = merge_sampler(DEFAULT_SAMPLER if sampler is None else sampler, {})
        self.prediction = prediction
        self.num_classes = num_classes_of(model)
        self.label_dropout = checked_dropout(model, label_dropout)
        self.routing = build_routing(routing, model)
        self._loss = build_loss(loss)
        self._latent_shape = None if latent_shape is None else tuple(latent_shape)
        self.channel_axis = channel_axis_of(self.latent_shape) if channel_axis is None else channel_axis

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one sample's latents, such as (4, 32, 32), or (16, 4, 32, 32) for clips."""
        return model_latent_shape(self.model) if self._latent_shape is None else self._latent_shape

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the model and the codec; dtype goes to the codec."""
        self.model.to(device)
        if self.codec is not None:
            self.codec.to(device, dtype)

    @torch.no_grad()
    def prepare_batch(self, batch: Batch, generator: SampleStreams) -> Batch:
        """Latents, labels with some dropped, timesteps and noise, all drawn from the samples' own streams.

        Returns "latents", "noise": (b, c, h, w) float32 (float64 stays), "timesteps": (b,) indices into the
        schedule, and "class_labels" (b,) for a model with classes. Stills follow the frames of their clip,
        (b, f + s, c, h, w), and have "image_labels" (b, s).
        """
        prepared = self._clean(batch, generator, self.label_dropout)
        latents = prepared["latents"]
        prepared["timesteps"] = generator.randint(self.schedule.num_timesteps, latents.device)
        prepared["noise"] = generator.randn_like(latents)
        if self.routing is not None:
            prepared["route"] = self.routing.draw(generator, latents)
        return prepared

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams | None = None) -> LossOutput:
        """Mean loss of a prepared batch, and its terms as metrics; a function of the batch alone."""
        return mean_loss(self._terms(model, batch))

    @torch.no_grad()
    def held_out_batch(self, batch: Batch, generator: SampleStreams, level: Tensor) -> Batch:
        """A prepared batch at given timesteps, every label seen.   level: (b,) in [0, 1), noise first."""
        prepared = self._clean(batch, generator, 0.0)
        latents = prepared["latents"]
        prepared["timesteps"] = self.schedule.timesteps_at(level).to(latents.device)
        prepared["noise"] = generator.randn_like(latents)
        return prepared

    def sample_losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Losses of a prepared batch, (b,)."""
        return self._terms(model, batch)["loss"]

    def level_density(self, level: Tensor) -> Tensor:
        """Training meets all timesteps alike."""
        return torch.ones_like(level)

    def _clean(self, batch: Batch, generator: SampleStreams, label_dropout: float) -> dict[str, Any]:
        return prepared_samples(
            self.model,
            batch,
            generator,
            codec=self.codec,
            latent_shape=self.latent_shape,
            label_dropout=label_dropout,
        )

    def _terms(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        x_0, noise, timesteps = batch["latents"], batch["noise"], batch["timesteps"]
        x_t = q_sample(x_0, noise, timesteps, self.schedule)
        seen = self.schedule.timestep_map.to(timesteps.device)[timesteps]
        output = predict(model, x_t, seen, batch, self.latent_shape)
        options = {"prediction": self.prediction, "channel_axis": self.channel_axis}
        return self._loss(output, x_0, x_t, noise, timesteps, self.schedule, **options)

    def conditions(
        self, num: int, class_labels: int | Sequence[int] | Tensor | None = None, **unknown: Any
    ) -> Batch:
        """Labels for `num` samples: one for all, or one for each; every class in turn when left out."""
        return class_conditions(num, class_labels, self.num_classes, unknown)

    @torch.no_grad()
    def sample(
        self, model: nn.Module, conditions: Batch, generator: SampleStreams, **overrides: Any
    ) -> Tensor:
        """Pixels (n, c, h, w) or (n, f, c, h, w) in [-1, 1], one sample for each stream.

        overrides: steps=50, sampler="ddim", guidance_scale=4.0, ...
        """
        sampler, guidance = build_sampler(merge_sampler(self.sampler, overrides), self.run_precision)
        parameter = next(model.parameters())
        labels = sampling_labels(
            self.model,
            conditions,
            len(generator),
            guidance.guidance_scale,
            asked=overrides.get("guidance_scale"),
        )
        labels = None if labels is None else labels.to(parameter.device)
        x_T = initial_noise(self.latent_shape, self.channel_axis, generator, parameter)
        with evaluating(model):
            x_0 = sampler(self._denoiser(model, labels, guidance), x_T, self.schedule, generator)
            return decoded(x_0, self.codec, self.channel_axis)

    def _denoiser(self, model: nn.Module, labels: Tensor | None, guidance: Guidance) -> Denoiser:
        return Denoiser(
            model,
            self.schedule,
            class_labels=labels,
            null_label=self.num_classes,
            guidance=guidance,
            prediction=self.prediction,
            channel_axis=self.channel_axis,
        )

"""The latent diffusion task: encode, diffuse, predict the noise; and back from noise to pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import DataError, ShapeError, UsageError, unused_options
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LatentCodec, LossOutput
from genzoo.diffusion.denoiser import Denoiser
from genzoo.diffusion.guidance import Guidance
from genzoo.diffusion.image_video import (
    append_stills,
    drop_still_labels,
    has_stills,
    still_labels,
    still_options,
)
from genzoo.diffusion.process import Prediction, q_sample
from genzoo.diffusion.schedule import NoiseSchedule
from genzoo.diffusion.sections import SHARED_OPTIONS, build_loss, build_sampler, build_schedule, merge_sampler
from genzoo.nn.embeddings import check_label_range, drop_labels
from genzoo.nn.evaluating import evaluating

if TYPE_CHECKING:
    pass

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
    channel_axis: by default 1 for images (b, c, h, w), 2 for clips (b, f, c, h, w).

    Batches hold "pixels" (b, c, h, w) or (b, f, c, h, w) in [-1, 1] or "moments" from a latent cache, and
    "class_labels" (b,) for a model with num_classes. Clips may come with stills to train on as well,
    "image_pixels" (b, s, c, h, w), or "image_moments" from a cache, and "image_labels" (b, s).
    """

    sampling_options = (Guidance,)  # what a recipe's sampler section holds beside the sampler's own options
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
    ) -> None:
        if not 0.0 <= label_dropout < 1.0:
            raise UsageError(f"label_dropout is a probability below 1, not {label_dropout}")
        if prediction not in ("noise", "x_0"):
            raise UsageError(f"prediction is {prediction!r}", fix='use "noise" or "x_0"')
        self.model, self.codec = model, codec
        self.schedule = build_schedule(schedule)
        self.sampler = merge_sampler(DEFAULT_SAMPLER if sampler is None else sampler, {})
        self.prediction = prediction
        self.num_classes = int(getattr(model, "num_classes", None) or 0)
        self.label_dropout = label_dropout if self.num_classes else 0.0
        self._loss = build_loss(loss)
        self._latent_shape = None if latent_shape is None else tuple(latent_shape)
        clips = hasattr(model, "num_frames") if latent_shape is None else len(latent_shape) == 4
        self.channel_axis = channel_axis if channel_axis is not None else 2 if clips else 1
        if self.label_dropout and not _has_null_class(model):
            raise UsageError(
                f"label_dropout is {label_dropout} but the model has no null class to put in a label's place",
                fix="build the model with null_class=True, or set label_dropout to 0",
            )

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one sample's latents, such as (4, 32, 32), or (16, 4, 32, 32) for clips."""
        if self._latent_shape is not None:
            return self._latent_shape
        model: Any = self.model
        frames = (model.num_frames,) if hasattr(model, "num_frames") else ()
        return (*frames, model.in_channels, model.input_size, model.input_size)

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
        device = next(self.model.parameters()).device
        latents = self._latents(batch, generator, device)
        num_frames = latents.shape[1]
        if has_stills(batch):
            latents = append_stills(latents, batch, self.codec, generator)
        prepared: dict[str, Any] = {"latents": latents}
        if self.num_classes:
            labels = self._labels(batch).to(device)
            prepared["class_labels"] = drop_labels(labels, self.label_dropout, self.num_classes, generator)
        if self.num_classes and has_stills(batch):
            labels = still_labels(batch, latents.shape[1] - num_frames)
            check_label_range(labels, self.num_classes, DataError)
            prepared["image_labels"] = drop_still_labels(
                labels.to(device), self.label_dropout, self.num_classes, generator
            )
        prepared["timesteps"] = generator.randint(self.schedule.num_timesteps, device)
        prepared["noise"] = generator.randn_like(latents)
        return prepared

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams | None = None) -> LossOutput:
        """Mean loss of a prepared batch, and its terms as metrics; a function of the batch alone."""
        x_0, noise, timesteps = batch["latents"], batch["noise"], batch["timesteps"]
        x_t = q_sample(x_0, noise, timesteps, self.schedule)
        seen = self.schedule.timestep_map.to(timesteps.device)[timesteps]
        stills = still_options(batch, self.latent_shape[0]) if x_t.ndim == 5 else {}
        output = model(x_t, seen, batch.get("class_labels"), **stills).to(x_t.dtype)
        terms = self._loss(
            output,
            x_0,
            x_t,
            noise,
            timesteps,
            self.schedule,
            prediction=self.prediction,
            channel_axis=self.channel_axis,
        )
        metrics = {name: term.detach().mean() for name, term in terms.items()}
        return LossOutput(terms["loss"].mean(), metrics)

    def conditions(
        self, num: int, class_labels: int | Sequence[int] | Tensor | None = None, **unknown: Any
    ) -> Batch:
        """Labels for `num` samples: one for all, or one for each; every class in turn when left out."""
        if unknown:
            raise unused_options(unknown, ["class_labels"])
        if not self.num_classes:
            if class_labels is not None:
                raise UsageError("class_labels were given, but the model is unconditional")
            return {}
        labels = (
            torch.arange(num) % self.num_classes if class_labels is None else torch.as_tensor(class_labels)
        )
        labels = labels.expand(num) if labels.ndim == 0 else labels
        if labels.shape != (num,):
            raise UsageError(
                f"{labels.numel()} class_labels for {num} samples", fix="pass one for each, or one for all"
            )
        check_label_range(labels, self.num_classes, UsageError)
        return {"class_labels": labels.long()}

    @torch.no_grad()
    def sample(
        self, model: nn.Module, conditions: Batch, generator: SampleStreams, **overrides: Any
    ) -> Tensor:
        """Pixels (n, c, h, w) or (n, f, c, h, w) in [-1, 1], one sample for each stream.

        overrides: steps=50, sampler="ddim", guidance_scale=4.0, ...
        """
        sampler, guidance = build_sampler(merge_sampler(self.sampler, overrides))
        parameter = next(model.parameters())
        labels = self._sampling_labels(conditions, len(generator), guidance)
        labels = None if labels is None else labels.to(parameter.device)
        dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
        like = torch.empty(len(generator), *self.latent_shape, device=parameter.device, dtype=dtype)
        x_T = torch.movedim(generator.randn_like(like), self.channel_axis, 1)
        with evaluating(model):
            x_0 = sampler(self._denoiser(model, labels, guidance), x_T, self.schedule, generator)
            latents = torch.movedim(x_0, 1, self.channel_axis)
            pixels = latents if self.codec is None else self.codec.decode(latents)
        return pixels.to(dtype).clamp(-1, 1)

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

    def _latents(self, batch: Batch, generator: SampleStreams, device: torch.device) -> Tensor:
        if "moments" in batch:
            if self.codec is None:
                raise DataError("the batch holds cached moments, but the task has no codec to read them")
            latents = self.codec.sample_moments(batch["moments"].to(device), generator)
        elif "pixels" in batch:
            pixels = batch["pixels"].to(device)
            latents = pixels if self.codec is None else self.codec.encode(pixels, generator)
        else:
            raise DataError(
                "the batch has neither pixels nor moments", why=f"it holds {', '.join(sorted(batch))}"
            )
        if tuple(latents.shape[1:]) != self.latent_shape:
            raise ShapeError(
                f"latents are {tuple(latents.shape[1:])} but the model takes {self.latent_shape}",
                fix="make the model's in_channels and input_size those of the codec's latents",
            )
        return latents if latents.dtype == torch.float64 else latents.float()

    def _labels(self, batch: Batch) -> Tensor:
        if "class_labels" not in batch:
            raise DataError(
                f"the model has {self.num_classes} classes but the data have no class_labels",
                fix="use data with classes, or a model with num_classes=0",
            )
        check_label_range(batch["class_labels"], self.num_classes, DataError)
        labels: Tensor = batch["class_labels"]
        return labels.long()

    def _sampling_labels(self, conditions: Batch, num: int, guidance: Guidance) -> Tensor | None:
        if not self.num_classes:
            if guidance.guidance_scale != 1.0:
                raise UsageError(
                    f"guidance_scale is {guidance.guidance_scale} but the model is unconditional",
                    fix="set guidance_scale to 1",
                )
            return None
        if guidance.guidance_scale != 1.0 and not _has_null_class(self.model):
            raise UsageError(
                "guidance needs a model trained with dropped labels, and this one has no null class",
                fix="set guidance_scale to 1",
            )
        labels: Tensor | None = conditions.get("class_labels")
        if labels is None or len(labels) != num:
            raise UsageError(
                f"{0 if labels is None else len(labels)} class_labels for {num} samples",
                fix="use task.conditions(num)",
            )
        return labels


def _has_null_class(model: nn.Module) -> bool:
    return bool(getattr(model, "arguments", {}).get("null_class", True))

"""The flow matching task: encode, mix with noise, predict the velocity; and back from noise to pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.contracts import able
from genzoo.core.contracts.models import HasPatches, PredictsVariance
from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LatentCodec, LossOutput, mean_loss
from genzoo.diffusion.flow.field import FlowGuidance, class_output
from genzoo.diffusion.flow.paths import FlowPrediction, interpolate
from genzoo.diffusion.flow.settings import PORT, flow_sampler, flow_settings
from genzoo.diffusion.flow.times import Times, num_tokens
from genzoo.diffusion.labels import checked_dropout, class_conditions, num_classes_of, sampling_labels
from genzoo.diffusion.latents import channel_axis_of, decoded, initial_noise, model_latent_shape
from genzoo.diffusion.precision import Arithmetic
from genzoo.diffusion.prepared import predict, prepared_samples
from genzoo.diffusion.routing import build_routing
from genzoo.diffusion.sections import SHARED_OPTIONS, build_loss, merge_sampler, split_guidance
from genzoo.nn.evaluating import evaluating


class FlowMatchingTask:
    """Trains a model (x_t, time, class_labels) -> velocity on latents of a codec (Lipman et al. 2023).

    loss: a name, a section such as {"name": "velocity_mse"}, or a function like those of flow.losses.
    codec: None trains on the pixels themselves.   path, prediction, times, time_scale: see FlowSettings;
    times is a name or a section such as {"name": "logit_normal", "mean": 0.0, "std": 1.0}.
    sampler: a section {"name": "flow_euler", "steps": 50, "guidance_scale": 1.5, ...}.
    label_dropout: probability of hiding a label in training, which guidance needs.
    routing: {"rate": 0.5, "start": 1, "end": 2}: in training, half of each picture's tokens pass by blocks 1
    and 2, counted from 0, which saves their time; for dim and dit.
    drop_variance: leave the second half of the output out, of a model with learn_sigma; SiT is built so.

    Batches are those of LatentDiffusionTask, clips with stills included.
    """

    # what a recipe's sampler section holds beside the sampler's own options
    sampling_options = (FlowGuidance, Arithmetic)
    run_precision = "fp32"  # of the training; whoever builds the task from a recipe says another
    supplies = SHARED_OPTIONS  # options of a loss that this task sets itself

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: str | Mapping[str, Any] | Callable[..., Mapping[str, Tensor]] = "velocity_mse",
        codec: LatentCodec | None = None,
        path: str = "linear",
        prediction: FlowPrediction = "velocity",
        times: str | Mapping[str, Any] | Times | None = None,
        time_scale: float = 1000.0,
        sampler: Mapping[str, Any] | None = None,
        label_dropout: float = 0.1,
        drop_variance: bool = False,
        routing: Mapping[str, Any] | None = None,
    ) -> None:
        variance, patched = able(model, PredictsVariance), able(model, HasPatches)
        if variance is not None and variance.learn_sigma and not drop_variance:
            raise UsageError(
                "the model predicts a variance, which a flow has none of",
                where="model.learn_sigma",
                fix="set it to false; or task.drop_variance to true, which leaves that half out as SiT does",
            )
        self.model, self.codec, self.drop_variance = model, codec, drop_variance
        self.latent_shape = model_latent_shape(model)
        self.channel_axis = channel_axis_of(self.latent_shape)
        tokens = num_tokens(self.latent_shape, 1 if patched is None else patched.patch_size)
        self.settings = flow_settings(path, prediction, times, time_scale, tokens)
        self.sampler = flow_sampler(sampler, self.settings.flow)
        self.num_classes = num_classes_of(model)
        self.label_dropout = checked_dropout(model, label_dropout)
        self.routing = build_routing(routing, model)
        self._loss = build_loss(loss, port=PORT)

    @property
    def prediction(self) -> FlowPrediction:
        """What the model predicts."""
        return self.settings.prediction

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the model and the codec; dtype goes to the codec."""
        self.model.to(device)
        if self.codec is not None:
            self.codec.to(device, dtype)

    @torch.no_grad()
    def prepare_batch(self, batch: Batch, generator: SampleStreams) -> Batch:
        """Latents, labels with some dropped, times and noise, all drawn from the samples' own streams.

        Returns "latents", "noise" (b, c, h, w), "times" (b,) in [0, 1], and "class_labels" (b,) for a model
        with classes. Stills follow the frames of their clip and have "image_labels" (b, s).
        """
        prepared = self.settings.with_noise(self._clean(batch, generator, self.label_dropout), generator)
        if self.routing is not None:
            prepared["route"] = self.routing.draw(generator, prepared["latents"])
        return prepared

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams | None = None) -> LossOutput:
        """Mean loss of a prepared batch, and its terms as metrics; a function of the batch alone."""
        return mean_loss(self._terms(model, batch))

    @torch.no_grad()
    def held_out_batch(self, batch: Batch, generator: SampleStreams, level: Tensor) -> Batch:
        """A prepared batch at given times, with every label seen.   level: (b,) in [0, 1), noise first."""
        return self.settings.with_noise(self._clean(batch, generator, 0.0), generator, level)

    def sample_losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Losses of a prepared batch, (b,)."""
        return self._terms(model, batch)["loss"]

    def level_density(self, level: Tensor) -> Tensor:
        """How often training meets these times (b,), relative to meeting all alike."""
        return self.settings.density(level)

    def _terms(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        x_1, noise, times, flow = batch["latents"], batch["noise"], batch["times"], self.settings.flow
        x_t = interpolate(x_1, noise, times, flow)
        output = predict(model, x_t, self.settings.seen(times), batch, self.latent_shape)
        if self.drop_variance:
            output = output.narrow(self.channel_axis, 0, x_t.shape[self.channel_axis])
        options = {"prediction": self.prediction, "channel_axis": self.channel_axis}
        return self._loss(output, x_1, x_t, noise, times, flow, **options)

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

        overrides: steps=50, sampler="flow_heun", guidance_scale=4.0, ...
        """
        sampler, guidance = split_guidance(
            merge_sampler(self.sampler, overrides, port=PORT), FlowGuidance, self.run_precision
        )
        parameter = next(model.parameters())
        labels = sampling_labels(
            self.model,
            conditions,
            len(generator),
            guidance.guidance_scale,
            asked=overrides.get("guidance_scale"),
        )
        labels = None if labels is None else labels.to(parameter.device)
        noise = initial_noise(self.latent_shape, self.channel_axis, generator, parameter)
        output = class_output(model, labels, self.num_classes, guidance, self.channel_axis)
        field = self.settings.field(output, self.channel_axis)
        with evaluating(model):
            x_1 = sampler(field, noise, self.settings.flow, generator)
            return decoded(x_1, self.codec, self.channel_axis)

    def _clean(self, batch: Batch, generator: SampleStreams, label_dropout: float) -> dict[str, Any]:
        return prepared_samples(
            self.model,
            batch,
            generator,
            codec=self.codec,
            latent_shape=self.latent_shape,
            label_dropout=label_dropout,
        )

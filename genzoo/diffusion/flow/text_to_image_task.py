"""Flow matching on captioned pictures, text encoder and UNet together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LatentCodec, LossOutput, mean_loss
from genzoo.diffusion.captions import check_captions, prompt_conditions, training_captions
from genzoo.diffusion.flow.field import FlowGuidance, prompt_output
from genzoo.diffusion.flow.paths import FlowPrediction, interpolate
from genzoo.diffusion.flow.settings import PORT, flow_sampler, flow_settings
from genzoo.diffusion.flow.times import Times, num_tokens
from genzoo.diffusion.latents import batch_latents, check_latents, initial_noise, model_latent_shape
from genzoo.diffusion.precision import Arithmetic
from genzoo.diffusion.prompted import by_length
from genzoo.diffusion.sections import SHARED_OPTIONS, build_loss, merge_sampler, split_guidance
from genzoo.nn.evaluating import evaluating


class FlowTextToImageTask:
    """Trains a model (x_t, time, input_ids) -> velocity, such as TextToImageModel, on latents.

    codec: None trains on pixels.   loss, path, prediction, times, time_scale: as in FlowMatchingTask.
    caption_dropout: probability of an empty caption in training, which guidance needs.
    prompts: what is sampled, in turn, when nobody asks for a prompt, such as in previews.
    Batches hold "pixels" (b, c, h, w) in [-1, 1] or "moments" from a latent cache, and "captions".
    """

    sampling_options = (FlowGuidance, Arithmetic)
    run_precision = "fp32"
    supplies = SHARED_OPTIONS

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
        caption_dropout: float = 0.1,
        prompts: Sequence[str] = ("",),
    ) -> None:
        check_captions(caption_dropout, prompts)
        self.model: Any = model
        self.codec = codec
        self.latent_shape = model_latent_shape(model)
        tokens = num_tokens(self.latent_shape, 1)
        self.settings = flow_settings(path, prediction, times, time_scale, tokens)
        self.sampler = flow_sampler(sampler, self.settings.flow)
        self.caption_dropout, self.prompts = caption_dropout, list(prompts)
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
        """Latents, token ids with some captions dropped, times and noise, from each sample's own stream.

        Returns "latents", "noise" (b, c, h, w), "times" (b,) in [0, 1] and "input_ids" (b, 77).
        """
        return self.settings.with_noise(self._clean(batch, generator, self.caption_dropout), generator)

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams | None = None) -> LossOutput:
        """Mean loss of a prepared batch, and its terms as metrics; a function of the batch alone."""
        return mean_loss(self._terms(model, batch))

    @torch.no_grad()
    def held_out_batch(self, batch: Batch, generator: SampleStreams, level: Tensor) -> Batch:
        """A prepared batch at given times, with every caption seen.   level: (b,) in [0, 1), noise first."""
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
        output = model(x_t, self.settings.seen(times), batch["input_ids"]).to(x_t.dtype)
        options = {"prediction": self.prediction, "channel_axis": 1}
        return self._loss(output, x_1, x_t, noise, times, flow, **options)

    def conditions(
        self,
        num: int,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | None = None,
        **unknown: Any,
    ) -> Batch:
        """Prompts for `num` samples: one for all, or one for each; the task's own, in turn, when left out."""
        return prompt_conditions(num, prompt, negative_prompt, self.prompts, unknown)

    @torch.no_grad()
    def sample(
        self, model: nn.Module, conditions: Batch, generator: SampleStreams, **overrides: Any
    ) -> Tensor:
        """Pixels (n, 3, h, w) in [-1, 1]. overrides: steps=50, sampler="flow_euler", ..."""
        sampler, guidance = split_guidance(
            merge_sampler(self.sampler, overrides, port=PORT), FlowGuidance, self.run_precision
        )
        plain: Any = model
        parts = plain.parts(self.codec, {})

        def draw(prompts: Sequence[str], streams: SampleStreams) -> Tensor:
            text = parts.encode_prompts(prompts)
            negative = parts.encode_negative(next(iter(conditions.get("negative_prompts", [])), None))
            field = self.settings.field(prompt_output(parts, text, negative.expand(len(prompts)), guidance))
            noise = initial_noise(self.latent_shape, 1, streams, text.hidden)
            x_1 = sampler(field, noise, self.settings.flow, streams)
            check_latents(x_1)
            pixels = x_1 if parts.vae is None else parts.vae.decode(x_1)
            return pixels.to(noise.dtype).clamp(-1, 1)

        with evaluating(model):
            return by_length(parts, conditions["prompts"], generator, draw)

    def _clean(self, batch: Batch, generator: SampleStreams, caption_dropout: float) -> dict[str, Any]:
        parameter = next(self.model.parameters())
        latents = batch_latents(batch, self.codec, generator, self.latent_shape, parameter.device)
        captions = training_captions(batch, caption_dropout, generator)
        return {
            "latents": latents.to(parameter.dtype),
            "input_ids": self.model.tokenize(captions).to(parameter.device),
        }

"""Diffusion under prompts: the schedule a released model was trained with, guidance by a negative prompt,
and sampling with genzoo's samplers, which step with diffusers' schedulers.

What is sampled is any object with `latent_shape`, `encode_prompts`, `encode_negative`, `predict` and `vae`,
such as `genzoo.pretrained.text_to_image.TextToImageParts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from genzoo.core.contracts import able
from genzoo.core.contracts.models import ReadsInChunks
from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import LatentCodec
from genzoo.diffusion.guidance import Guidance, combine
from genzoo.diffusion.latents import check_latents
from genzoo.diffusion.schedule import NoiseSchedule, cosine_betas
from genzoo.diffusion.sections import build_sampler, merge_sampler

PromptedPrediction = Literal["noise", "v"]
PREDICTIONS: dict[str, PromptedPrediction] = {"epsilon": "noise", "v_prediction": "v"}
DEFAULT_SAMPLER = {"name": "dpm_solver_pp", "steps": 25, "guidance_scale": 6.0}


class Prompted(Protocol):
    """What can be sampled with prompts."""

    @property
    def latent_shape(self) -> tuple[int, int, int]: ...
    @property
    def vae(self) -> LatentCodec | None: ...
    def encode_prompts(self, prompts: Sequence[str]) -> Any: ...
    def encode_negative(self, prompt: str | None) -> Any: ...
    def predict(self, x_t: Tensor, timesteps: Tensor, text: Any) -> Tensor: ...


class Diffusion(NamedTuple):
    """The noise a model was trained with, and what it predicts."""

    schedule: NoiseSchedule
    prediction: PromptedPrediction


def schedule_from(scheduler: Mapping[str, Any]) -> Diffusion:
    """Of a scheduler_config.json, of whichever scheduler class. Raises WeightsError for what is not known."""
    kind = scheduler.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise WeightsError(
            f"the model predicts {kind!r}", why=f"scheduler_config.json; known: {', '.join(PREDICTIONS)}"
        )
    if scheduler.get("rescale_betas_zero_snr"):
        raise WeightsError(
            "the model was trained with rescale_betas_zero_snr, which is not supported",
            fix="use a model whose last timestep keeps some signal, such as Stable Diffusion 1.x, 2.x or XL",
        )
    betas = torch.from_numpy(_betas(scheduler))
    return Diffusion(NoiseSchedule(betas, torch.arange(len(betas))), PREDICTIONS[kind])


def _betas(scheduler: Mapping[str, Any]) -> np.ndarray:
    """(T,) float64, by diffusers' names and defaults."""
    if scheduler.get("trained_betas") is not None:
        return np.asarray(scheduler["trained_betas"], dtype=np.float64)
    count = int(scheduler.get("num_train_timesteps", 1000))
    first, last = float(scheduler.get("beta_start", 1e-4)), float(scheduler.get("beta_end", 2e-2))
    name = scheduler.get("beta_schedule", "linear")
    if name == "linear":
        return np.linspace(first, last, count, dtype=np.float64)
    if name == "scaled_linear":
        return np.linspace(first**0.5, last**0.5, count, dtype=np.float64) ** 2
    if name == "squaredcos_cap_v2":
        return cosine_betas(count)
    raise WeightsError(f"there is no beta schedule {name!r}", why="in scheduler_config.json")


def v_target(x_0: Tensor, noise: Tensor, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor:
    """v = sqrt(alpha-bar) noise - sqrt(1 - alpha-bar) x_0 (Salimans & Ho 2022); all (b, ...)."""
    signal = schedule.gather("sqrt_alphas_cumprod", timesteps, x_0)
    return signal * noise - schedule.gather("sqrt_one_minus_alphas_cumprod", timesteps, x_0) * x_0


def noise_from_v(x_t: Tensor, v: Tensor, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor:
    """The noise in x_t that a predicted v stands for."""
    signal = schedule.gather("sqrt_alphas_cumprod", timesteps, x_t)
    return signal * v + schedule.gather("sqrt_one_minus_alphas_cumprod", timesteps, x_t) * x_t


def training_target(x_0: Tensor, noise: Tensor, timesteps: Tensor, diffusion: Diffusion) -> Tensor:
    """What the model should output at q_sample(x_0, noise, timesteps)."""
    return noise if diffusion.prediction == "noise" else v_target(x_0, noise, timesteps, diffusion.schedule)


class PromptedDenoiser:
    """(x_t, training timesteps) -> predicted noise under guidance; what genzoo's samplers call.

    text, negative: features with one row per sample, as the model's `predict` takes them.
    """

    def __init__(
        self, model: Prompted, diffusion: Diffusion, text: Any, negative: Any, guidance: Guidance
    ) -> None:
        self.model, self.diffusion, self.guidance = model, diffusion, guidance
        self.text, self.negative = text, negative

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """x: (b, c, h, w).   timesteps: (b,) int64, all equal.   Returns (b, c, h, w) in float32 at least."""
        output = self._guided(x, timesteps)
        if self.diffusion.prediction == "v":
            return noise_from_v(x, output, timesteps, self.diffusion.schedule)
        return output

    def _guided(self, x: Tensor, timesteps: Tensor) -> Tensor:
        negative = self.negative if self.guidance.active(timesteps) else None
        return prompted_output(
            self.model,
            x,
            timesteps,
            self.text,
            negative,
            self.guidance.guidance_scale,
            cfg_channels=self.guidance.cfg_channels,
        )


def prompted_output(
    model: Prompted,
    x: Tensor,
    timesteps: Tensor,
    text: Any,
    negative: Any,
    guidance_scale: float,
    *,
    cfg_channels: int | Literal["all"] = "all",
) -> Tensor:
    """The model's output in x's dtype, guided away from `negative` unless that is None."""
    x_t = x.to(text.hidden.dtype)
    conditional = model.predict(x_t, timesteps, text).to(x.dtype)
    if negative is None:
        return conditional
    # two calls and not one doubled batch: the halves then round alike whether or not there is guidance
    unconditional = model.predict(x_t, timesteps, negative).to(x.dtype)
    return combine(
        conditional, unconditional, guidance_scale, num_channels=x.shape[1], cfg_channels=cfg_channels
    )


@torch.no_grad()
def sample_prompts(
    model: Prompted,
    diffusion: Diffusion,
    prompts: Sequence[str],
    generator: SampleStreams,
    *,
    negative_prompt: str | None = None,
    sampler: Mapping[str, Any] | None = None,
    run_precision: str = "fp32",
    **overrides: Any,
) -> Tensor:
    """Pixels (n, 3, h, w) float32 in [-1, 1], one for each prompt and stream.

    sampler: a section such as {"name": "dpm_solver_pp", "steps": 25, "guidance_scale": 6.0}; `overrides`
    change single options of it.   run_precision: what its precision "run" means.
    """
    if len(prompts) != len(generator):
        raise UsageError(f"{len(prompts)} prompts for {len(generator)} samples", fix="pass one for each")
    function, guidance = build_sampler(merge_sampler(sampler or DEFAULT_SAMPLER, overrides), run_precision)

    def draw(some: Sequence[str], streams: SampleStreams) -> Tensor:
        text = model.encode_prompts(some)
        negative = model.encode_negative(negative_prompt).expand(len(some))
        like = torch.empty(len(some), *model.latent_shape, device=text.hidden.device)
        denoiser = PromptedDenoiser(model, diffusion, text, negative, guidance)
        latents = function(denoiser, streams.randn_like(like), diffusion.schedule, streams)
        check_latents(latents)
        pixels = latents if model.vae is None else model.vae.decode(latents)
        return pixels.float().clamp(-1, 1)

    return by_length(model, prompts, generator, draw)


def by_length(
    model: object,
    prompts: Sequence[str],
    generator: SampleStreams,
    draw: Callable[[Sequence[str], SampleStreams], Tensor],
) -> Tensor:
    """What `draw` makes of prompts and their streams, (n, ...), those of one length at a time: a sample does
    not depend on how long its neighbours' prompts are.
    """
    reading = able(model, ReadsInChunks)
    lengths = [1 if reading is None else reading.num_chunks(prompt) for prompt in prompts]
    rows: dict[int, Tensor] = {}
    for length in sorted(set(lengths)):
        chosen = [index for index, one in enumerate(lengths) if one == length]
        streams = SampleStreams([generator.generators[index] for index in chosen])
        rows.update(zip(chosen, draw([prompts[index] for index in chosen], streams), strict=True))
    return torch.stack([rows[index] for index in range(len(prompts))])

"""The Gaussian diffusion process: adding noise, the true posterior, the model's reverse step.

Everything is elementwise in space, so images (b, c, h, w) and videos (b, f, c, h, w) go the same way; only
where a model output holds two halves does `channel_axis` say along which axis they lie (1, or 2 for videos).
Arithmetic runs in the dtype of x_t, at least float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genzoo.core.errors import ShapeError, UsageError
from genzoo.diffusion.schedule import NoiseSchedule

Prediction = Literal["noise", "x_0"]
Variance = Literal["learned_range", "fixed_large", "fixed_small"]


@dataclass(frozen=True)
class ReverseStep:
    """The model's Gaussian over x_{t-1}; all of x_t's shape (b, ...), variance in squared data units."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor
    x_0: Tensor


def q_sample(x_0: Tensor, noise: Tensor, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Diffuse clean latents to `timesteps` (DDPM Eq. 4).

    x_0, noise: (b, ...), x_0 scaled to about unit variance.   timesteps: (b,) int64 in [0, T).
    Returns x_t of the same shape.   Raises ShapeError if x_0 and noise differ.
    """
    if x_0.shape != noise.shape:
        raise ShapeError(
            f"x_0 has shape {tuple(x_0.shape)} but noise {tuple(noise.shape)}; they must be equal"
        )
    signal = schedule.gather("sqrt_alphas_cumprod", timesteps, x_0)
    return signal * x_0 + schedule.gather("sqrt_one_minus_alphas_cumprod", timesteps, x_0) * noise


def q_posterior(
    x_0: Tensor, x_t: Tensor, timesteps: Tensor, schedule: NoiseSchedule
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and clipped log-variance of q(x_{t-1} | x_t, x_0) (DDPM Eq. 7), each of x_t's shape."""
    mean = (
        schedule.gather("posterior_mean_coef1", timesteps, x_t) * x_0
        + schedule.gather("posterior_mean_coef2", timesteps, x_t) * x_t
    )
    variance = schedule.gather("posterior_variance", timesteps, x_t).expand_as(mean)
    return mean, variance, schedule.gather("posterior_log_variance_clipped", timesteps, x_t).expand_as(mean)


def x_0_from_noise(x_t: Tensor, noise: Tensor, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor:
    """The clean latents that x_t came from if `noise` was added."""
    return (
        schedule.gather("sqrt_recip_alphas_cumprod", timesteps, x_t) * x_t
        - schedule.gather("sqrt_recipm1_alphas_cumprod", timesteps, x_t) * noise
    )


def noise_from_x_0(x_t: Tensor, x_0: Tensor, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor:
    """The noise in x_t if the clean latents were `x_0`; the inverse of `x_0_from_noise`."""
    scaled = schedule.gather("sqrt_recip_alphas_cumprod", timesteps, x_t) * x_t
    return (scaled - x_0) / schedule.gather("sqrt_recipm1_alphas_cumprod", timesteps, x_t)


def split_output(model_output: Tensor, x_t: Tensor, channel_axis: int = 1) -> tuple[Tensor, Tensor | None]:
    """Prediction and variance halves of a model output; None for a variance that is not learned.

    model_output: like x_t, with c or 2c channels.
    """
    channels = x_t.shape[channel_axis]
    expected = list(x_t.shape)
    for factor in (1, 2):
        expected[channel_axis] = factor * channels
        if list(model_output.shape) == expected:
            halves = torch.split(model_output, channels, channel_axis)
            return halves[0], halves[1] if factor == 2 else None
    raise ShapeError(
        f"the model returned {tuple(model_output.shape)} for an input of {tuple(x_t.shape)}",
        fix=f"axis {channel_axis} must hold {channels} channels, or {2 * channels} with learned variance",
    )


def p_mean_variance(
    model_output: Tensor,
    x_t: Tensor,
    timesteps: Tensor,
    schedule: NoiseSchedule,
    *,
    prediction: Prediction = "noise",
    variance: Variance = "learned_range",
    clip_x_0: bool = False,
    channel_axis: int = 1,
) -> ReverseStep:
    """The model's p(x_{t-1} | x_t).

    model_output: (b, 2c, ...) prediction and v for variance="learned_range", else (b, c, ...).
    v in [-1, 1] (not clamped) interpolates the log-variance between the posterior's and beta's (Improved
    DDPM Eq. 15). clip_x_0 clamps the predicted clean image to [-1, 1]: for pixels, never for latents.
    """
    predicted, v = split_output(model_output, x_t, channel_axis)
    log_variance = _log_variance(v, x_t, timesteps, schedule, variance)
    x_0 = predicted if prediction == "x_0" else x_0_from_noise(x_t, predicted, timesteps, schedule)
    x_0 = x_0.clamp(-1, 1) if clip_x_0 else x_0
    mean, _, _ = q_posterior(x_0, x_t, timesteps, schedule)
    return ReverseStep(mean, _variance(log_variance, x_t, timesteps, schedule, variance), log_variance, x_0)


def _log_variance(
    v: Tensor | None, x_t: Tensor, timesteps: Tensor, schedule: NoiseSchedule, variance: Variance
) -> Tensor:
    if (variance == "learned_range") != (v is not None):
        seen = "no variance channels" if v is None else "variance channels"
        raise UsageError(
            f"variance is {variance!r} but the model output has {seen}",
            fix="set the model's learn_sigma to match the loss and the sampler",
        )
    smallest = schedule.gather("posterior_log_variance_clipped", timesteps, x_t)
    if v is not None:
        fraction = (v + 1) / 2
        return fraction * schedule.gather("log_betas", timesteps, x_t) + (1 - fraction) * smallest
    if variance == "fixed_large":
        return schedule.gather("fixed_large_variance", timesteps, x_t).log().expand_as(x_t)
    return smallest.expand_as(x_t)


def _variance(
    log_variance: Tensor, x_t: Tensor, timesteps: Tensor, schedule: NoiseSchedule, variance: Variance
) -> Tensor:
    if variance == "fixed_small":
        # the table is exactly zero at t = 0, where its clipped logarithm is not
        return schedule.gather("posterior_variance", timesteps, x_t).expand_as(x_t)
    return log_variance.exp()

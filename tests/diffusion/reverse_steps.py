"""Steps and terms written out as in the papers, which samplers and schedules are compared with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genzoo.diffusion.losses import gaussian_kl
from genzoo.diffusion.process import ReverseStep, noise_from_x_0
from genzoo.diffusion.schedule import NoiseSchedule


def ancestral_step(step: ReverseStep, noise: Tensor, timesteps: Tensor) -> Tensor:
    """One DDPM step from x_t to x_{t-1}; no noise is added at timestep 0."""
    moves = (timesteps != 0).to(noise).reshape(-1, *[1] * (noise.ndim - 1))
    return step.mean + moves * (0.5 * step.log_variance).exp() * noise


def ddim_step(
    x_0: Tensor, x_t: Tensor, noise: Tensor, timesteps: Tensor, schedule: NoiseSchedule, *, eta: float = 0.0
) -> Tensor:
    """One DDIM step (DDIM Eq. 12); eta 0 is deterministic, eta 1 adds the posterior's noise; none at t = 0.

    x_0: the prediction of this step, clamped or not; the noise direction is derived from it again.
    """
    predicted = noise_from_x_0(x_t, x_0, timesteps, schedule)
    alpha = schedule.gather("alphas_cumprod", timesteps, x_t)
    previous = schedule.gather("alphas_cumprod_prev", timesteps, x_t)
    sigma = eta * ((1 - previous) / (1 - alpha)).sqrt() * (1 - alpha / previous).sqrt()
    mean = previous.sqrt() * x_0 + (1 - previous - sigma**2).sqrt() * predicted
    return mean + sigma * noise


def ddim_reverse_step(x_0: Tensor, x_t: Tensor, timesteps: Tensor, schedule: NoiseSchedule) -> Tensor:
    """One deterministic DDIM step towards more noise: the inversion that edits of real images start from."""
    predicted = noise_from_x_0(x_t, x_0, timesteps, schedule)
    following = schedule.gather("alphas_cumprod_next", timesteps, x_t)
    return following.sqrt() * x_0 + (1 - following).sqrt() * predicted


def prior_bits_per_dimension(x_0: Tensor, schedule: NoiseSchedule) -> Tensor:
    """The bound's constant last term, (b,): how far the noisiest x_T still is from a standard normal."""
    last = torch.full((len(x_0),), schedule.num_timesteps - 1, device=x_0.device)
    mean = schedule.gather("sqrt_alphas_cumprod", last, x_0) * x_0
    log_variance = schedule.gather("log_one_minus_alphas_cumprod", last, x_0).expand_as(x_0)
    zero = torch.zeros_like(mean)
    return gaussian_kl(mean, log_variance, zero, zero).flatten(1).mean(1) / math.log(2)

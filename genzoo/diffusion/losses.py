"""Diffusion losses as pure functions: the noise is an argument, every term is returned per sample.

All share `(model_output, x_0, x_t, noise, timesteps, schedule, *, options) -> {"loss": (b,), ...}`; the
terms are means over everything but the batch, "vb" in bits per dimension. Arithmetic is float32 at least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.diffusion.process import Prediction, Variance, p_mean_variance, q_posterior, split_output
from genzoo.diffusion.schedule import NoiseSchedule

Loss = Callable[..., Mapping[str, Tensor]]


def noise_mse(
    model_output: Tensor,
    x_0: Tensor,
    x_t: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    schedule: NoiseSchedule,
    *,
    prediction: Prediction = "noise",
    channel_axis: int = 1,
) -> dict[str, Tensor]:
    """Squared error of the predicted noise (DDPM Eq. 14), or of x_0; for a model without learned variance.

    model_output, x_0, x_t, noise: (b, c, ...).   timesteps: (b,).   Returns "loss" and "mse", (b,).
    """
    predicted, v = split_output(model_output, x_t, channel_axis)
    if v is not None:
        raise UsageError(
            "noise_mse would leave the model's variance channels untrained",
            fix="use the hybrid loss, or build the model with learn_sigma=False",
        )
    mse = _mean(((x_0 if prediction == "x_0" else noise) - predicted) ** 2)
    return {"loss": mse, "mse": mse}


def hybrid(
    model_output: Tensor,
    x_0: Tensor,
    x_t: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    schedule: NoiseSchedule,
    *,
    vb_weight: float = 1.0,
    prediction: Prediction = "noise",
    channel_axis: int = 1,
) -> dict[str, Tensor]:
    """Squared error of the noise plus the bound, which trains the variance only (Improved DDPM Eq. 16).

    model_output: (b, 2c, ...), prediction and v.   x_0, x_t, noise: (b, c, ...).   timesteps: (b,).
    The prediction enters the bound detached. Returns "loss" = mse + vb_weight * vb, "mse" and "vb", (b,).
    """
    predicted, v = split_output(model_output, x_t, channel_axis)
    if v is None:
        raise UsageError(
            "the hybrid loss trains a learned variance, and this model has none",
            fix="build the model with learn_sigma=True, or use the noise_mse loss",
        )
    mse = _mean(((x_0 if prediction == "x_0" else noise) - predicted) ** 2)
    frozen = torch.cat([predicted.detach(), v], channel_axis)
    vb = variational_bound(
        frozen, x_0, x_t, timesteps, schedule, prediction=prediction, channel_axis=channel_axis
    )
    return {"loss": mse + vb_weight * vb, "mse": mse, "vb": vb}


def kl(
    model_output: Tensor,
    x_0: Tensor,
    x_t: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    schedule: NoiseSchedule,
    *,
    variance: Variance = "learned_range",
    prediction: Prediction = "noise",
    channel_axis: int = 1,
) -> dict[str, Tensor]:
    """The variational bound alone, for prediction and variance: an estimate of its T terms.

    model_output: (b, 2c, ...) for variance="learned_range", else (b, c, ...).   x_0, x_t, noise: (b, c, ...).
    Returns "loss" = T * vb and "vb", (b,), in bits per dimension.
    """
    vb = variational_bound(
        model_output,
        x_0,
        x_t,
        timesteps,
        schedule,
        variance=variance,
        prediction=prediction,
        channel_axis=channel_axis,
    )
    return {"loss": schedule.num_timesteps * vb, "vb": vb}


def variational_bound(
    model_output: Tensor,
    x_0: Tensor,
    x_t: Tensor,
    timesteps: Tensor,
    schedule: NoiseSchedule,
    *,
    variance: Variance = "learned_range",
    prediction: Prediction = "noise",
    clip_x_0: bool = False,
    channel_axis: int = 1,
) -> Tensor:
    """One term of the bound (DDPM Eq. 5) per sample, (b,), in bits per dimension.

    The divergence of the true posterior from the model's step; at t = 0 the likelihood of x_0 in 8-bit
    bins. Latents are not 8-bit pixels and leave [-1, 1]; the released latent models train with this formula
    all the same.
    """
    true_mean, _, true_log_variance = q_posterior(x_0, x_t, timesteps, schedule)
    step = p_mean_variance(
        model_output,
        x_t,
        timesteps,
        schedule,
        prediction=prediction,
        variance=variance,
        clip_x_0=clip_x_0,
        channel_axis=channel_axis,
    )
    divergence = _mean(gaussian_kl(true_mean, true_log_variance, step.mean, step.log_variance))
    decoder = _mean(-discretised_log_likelihood(x_0, step.mean, 0.5 * step.log_variance))
    return torch.where(timesteps.to(x_0.device) == 0, decoder, divergence) / math.log(2)


def gaussian_kl(mean_p: Tensor, log_variance_p: Tensor, mean_q: Tensor, log_variance_q: Tensor) -> Tensor:
    """KL(p || q) of diagonal Gaussians in nats, elementwise."""
    ratio = log_variance_p - log_variance_q
    return 0.5 * (torch.expm1(ratio) - ratio + (mean_p - mean_q) ** 2 * (-log_variance_q).exp())


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability in nats of 8-bit x in [-1, 1] under a Gaussian in bins of width 2/255, elementwise.

    Values beyond +-0.999 take the whole tail; probabilities are floored at 1e-12.
    """
    inverse_scale = (-log_scale).exp()
    upper = _normal_cdf((x - mean + 1 / 255) * inverse_scale)
    lower = _normal_cdf((x - mean - 1 / 255) * inverse_scale)
    probability = torch.where(x < -0.999, upper, torch.where(x > 0.999, 1 - lower, upper - lower))
    return probability.clamp(min=1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    # the tanh approximation is what the released models were trained with; erf differs in the fourth digit
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)

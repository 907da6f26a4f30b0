"""Losses of a flow as pure functions: noise and times are arguments, terms are per sample.

All share `(model_output, x_1, x_t, noise, times, flow, *, options) -> {"loss": (b,), ...}`: means over all
but the batch, in float32 at least. `prediction` and `channel_axis` come from the task.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from genzoo.core.errors import ShapeError, UsageError
from genzoo.diffusion.flow.paths import Coefficients, Flow, FlowPrediction, velocity_from

VelocityWeighting = Literal["none", "sigma_sqrt", "cosmap", "min_snr"]
PredictionWeighting = Literal["none", "velocity", "likelihood"]


def velocity_mse(
    model_output: Tensor,
    x_1: Tensor,
    x_t: Tensor,
    noise: Tensor,
    times: Tensor,
    flow: Flow,
    *,
    weighting: VelocityWeighting = "none",
    snr_gamma: float = 5.0,
    direction_weight: float = 0.0,
    smallest: float = 0.05,
    prediction: FlowPrediction = "velocity",
    channel_axis: int = 1,
) -> dict[str, Tensor]:
    """Squared error of the velocity, whatever the network predicts.

    weighting: "sigma_sqrt" sigma^-2 and "cosmap" 2 / (pi (1 - 2 sigma + 2 sigma^2)) of SD3, or "min_snr":
        min(SNR, snr_gamma) times the squared error of the clean latents that the velocity points to.
    direction_weight: of 1 - cosine between the velocities over the channels (LightningDiT).
    smallest: under it sigma (for x_0) or alpha (for noise and score) stops dividing: the velocity's error is
        that of the prediction over this coefficient, so that its weight would grow without bound.
    model_output, x_1, x_t, noise: (b, c, ...).   times: (b,).   Returns "loss" and "mse", (b,).
    """
    _require_plain(model_output, x_t, channel_axis)
    c = flow.at(times, x_t)
    mse = _velocity_weight(prediction, c, smallest) * _error(prediction, model_output, x_1, noise, c)
    loss = _by_noise(weighting, c, snr_gamma) * mse
    terms = {"mse": mse}
    if direction_weight:
        velocity = velocity_from(prediction, x_t, model_output, c)
        target = c.d_alpha * x_1 + c.d_sigma * noise
        terms["direction"] = _mean(1 - torch.cosine_similarity(velocity, target, dim=channel_axis))
        loss = loss + direction_weight * terms["direction"]
    return {"loss": loss, **terms}


def prediction_mse(
    model_output: Tensor,
    x_1: Tensor,
    x_t: Tensor,
    noise: Tensor,
    times: Tensor,
    flow: Flow,
    *,
    weighting: PredictionWeighting = "none",
    prediction: FlowPrediction = "velocity",
    channel_axis: int = 1,
) -> dict[str, Tensor]:
    """Squared error of what the network predicts, with SiT's weights for noise and score.

    weighting: "velocity" (lambda / sigma)^2 and "likelihood" lambda / sigma^2, for noise and score only. A
    score is compared as sigma score + noise. Shapes as in `velocity_mse`. Returns "loss" and "mse", (b,).
    """
    _require_plain(model_output, x_t, channel_axis)
    if weighting != "none" and prediction not in ("noise", "score"):
        raise UsageError(
            f"weighting {weighting!r} belongs to predictions of noise or score, this one is {prediction!r}",
            where="task.loss",
            fix="use none, or the loss velocity_mse",
        )
    c = flow.at(times, x_t)
    mse = _error(prediction, model_output, x_1, noise, c)
    if weighting == "none":
        return {"loss": mse, "mse": mse}
    per_noise = c.determinant / c.alpha  # lambda / sigma
    weight = per_noise**2 if weighting == "velocity" else per_noise / c.sigma
    return {"loss": weight.flatten() * mse, "mse": mse}


def sd3_weight(weighting: VelocityWeighting, sigma: Tensor) -> Tensor:
    """SD3's weights by noise share: sigma^-2 for "sigma_sqrt", a cosine map's slope for "cosmap"."""
    if weighting == "sigma_sqrt":
        return sigma**-2.0
    if weighting == "cosmap":
        return 2 / (torch.pi * (1 - 2 * sigma + 2 * sigma**2))
    return torch.ones_like(sigma)


def _by_noise(weighting: VelocityWeighting, c: Coefficients, snr_gamma: float) -> Tensor:
    if weighting != "min_snr":
        # sigma^-2 has no bound near the data; diffusers' table of noise ends at a thousandth
        return sd3_weight(weighting, c.sigma.clamp(min=1e-3)).flatten()
    # the clean latents are (sigma / determinant) v away: min(SNR, gamma) of their error, without a division
    return (torch.minimum(c.alpha**2, snr_gamma * c.sigma**2) / c.determinant**2).flatten()


def _velocity_weight(prediction: FlowPrediction, c: Coefficients, smallest: float) -> Tensor:
    """How much larger the velocity's squared error is than the prediction's own, (b,)."""
    if prediction == "velocity":
        return torch.ones_like(c.alpha).flatten()
    divisor = c.sigma if prediction == "x_0" else c.alpha
    return ((c.determinant / divisor.clamp(min=smallest)) ** 2).flatten()


def _error(prediction: FlowPrediction, output: Tensor, x_1: Tensor, noise: Tensor, c: Coefficients) -> Tensor:
    """Squared error of the prediction, (b,); that of a score is scaled by sigma."""
    if prediction == "velocity":
        return _mean((output - (c.d_alpha * x_1 + c.d_sigma * noise)) ** 2)
    if prediction == "score":
        return _mean((c.sigma * output + noise) ** 2)
    return _mean((output - (x_1 if prediction == "x_0" else noise)) ** 2)


def _require_plain(model_output: Tensor, x_t: Tensor, channel_axis: int) -> None:
    if model_output.shape == x_t.shape:
        return
    channels = x_t.shape[channel_axis]
    if model_output.shape[channel_axis] == 2 * channels:
        raise UsageError(
            "the model predicts a variance, which a flow has none of", fix="build it with learn_sigma=False"
        )
    raise ShapeError(
        f"the model returned {tuple(model_output.shape)} for an input of {tuple(x_t.shape)}",
        fix=f"axis {channel_axis} must hold {channels} channels",
    )


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)

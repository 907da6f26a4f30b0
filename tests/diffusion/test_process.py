"""Invariants of the forward and reverse process."""

from __future__ import annotations

import math

import pytest
import torch
from diffusion.reverse_steps import ancestral_step, ddim_reverse_step, ddim_step
from torch import Tensor

from genzoo.core.errors import ShapeError, UsageError
from genzoo.diffusion.process import (
    noise_from_x_0,
    p_mean_variance,
    q_posterior,
    q_sample,
    split_output,
    x_0_from_noise,
)
from genzoo.diffusion.schedule import make_schedule

SCHEDULE = make_schedule()
TIMESTEPS = torch.tensor([0, 1, 10, 400, 999])


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X_0, NOISE, OTHER = randn(5, 2, 3, 4), randn(5, 2, 3, 4, seed=1), randn(5, 2, 3, 4, seed=2)
X_T = q_sample(X_0, NOISE, TIMESTEPS, SCHEDULE)


def test_unit_variance_is_kept() -> None:
    signal = SCHEDULE.sqrt_alphas_cumprod**2 + SCHEDULE.sqrt_one_minus_alphas_cumprod**2
    assert torch.allclose(signal, torch.ones(1000, dtype=torch.float64), rtol=1e-14)


def test_predictions_invert_each_other() -> None:
    assert torch.allclose(x_0_from_noise(X_T, NOISE, TIMESTEPS, SCHEDULE), X_0, atol=1e-9)
    assert torch.allclose(noise_from_x_0(X_T, X_0, TIMESTEPS, SCHEDULE), NOISE, atol=1e-9)


def test_posterior_agrees_with_bayes_rule() -> None:
    t = torch.tensor([1, 10, 400, 998, 999])
    x_t = q_sample(X_0, NOISE, t, SCHEDULE)
    mean, variance, _ = q_posterior(X_0, x_t, t, SCHEDULE)
    previous, beta = SCHEDULE.alphas_cumprod[t - 1], SCHEDULE.betas[t]
    prior_mean = previous.sqrt().reshape(-1, 1, 1, 1) * X_0
    precision = (1 / (1 - previous) + (1 - beta) / beta).reshape(-1, 1, 1, 1)
    weighted = prior_mean / (1 - previous).reshape(-1, 1, 1, 1) + x_t * ((1 - beta).sqrt() / beta).reshape(
        -1, 1, 1, 1
    )
    assert torch.allclose(variance, (1 / precision).expand_as(variance), rtol=1e-9)
    assert torch.allclose(mean, weighted / precision, rtol=1e-9)


@pytest.mark.parametrize(("v", "table"), [(-1.0, "posterior_log_variance_clipped"), (1.0, "log_betas")])
def test_variance_channels_reach_both_ends(v: float, table: str) -> None:
    output = torch.cat([NOISE, torch.full_like(NOISE, v)], 1)
    step = p_mean_variance(output, X_T, TIMESTEPS, SCHEDULE)
    expected = getattr(SCHEDULE, table)[TIMESTEPS].reshape(-1, 1, 1, 1).expand_as(X_T)
    assert torch.allclose(step.log_variance, expected, rtol=1e-12)
    assert torch.allclose(step.variance, expected.exp(), rtol=1e-12)


def test_ancestral_step_adds_no_noise_at_timestep_0() -> None:
    step = p_mean_variance(torch.cat([NOISE, OTHER], 1), X_T, TIMESTEPS, SCHEDULE)
    moved = ancestral_step(step, OTHER, TIMESTEPS) - step.mean
    assert torch.equal(moved[0], torch.zeros_like(moved[0]))
    assert (moved[1:].flatten(1).abs().sum(1) > 0).all()


def test_ddim_at_eta_0_ignores_the_noise() -> None:
    with_noise = ddim_step(X_0, X_T, OTHER, TIMESTEPS, SCHEDULE, eta=0.0)
    assert torch.equal(with_noise, ddim_step(X_0, X_T, -OTHER, TIMESTEPS, SCHEDULE, eta=0.0))


def test_ddim_at_eta_1_is_the_ddpm_step() -> None:
    step = p_mean_variance(NOISE, X_T, TIMESTEPS, SCHEDULE, variance="fixed_small")
    difference = ddim_step(X_0, X_T, OTHER, TIMESTEPS, SCHEDULE, eta=1.0) - ddim_step(
        X_0, X_T, torch.zeros_like(OTHER), TIMESTEPS, SCHEDULE, eta=1.0
    )
    deviation = (difference[1:] / OTHER[1:]).flatten(1)
    assert torch.allclose(deviation**2, step.variance[1:].flatten(1), rtol=1e-9)
    assert torch.allclose(
        ddim_step(step.x_0, X_T, OTHER, TIMESTEPS, SCHEDULE, eta=1.0)[1:],
        (step.mean + step.variance.sqrt() * OTHER)[1:],
        rtol=1e-9,
    )


def test_ddim_inversion_and_sampling_cancel() -> None:
    t = torch.tensor([1, 5, 10, 400, 998])
    x_t = q_sample(X_0, NOISE, t, SCHEDULE)
    up = ddim_reverse_step(X_0, x_t, t, SCHEDULE)
    assert torch.allclose(ddim_step(X_0, up, OTHER, t + 1, SCHEDULE), x_t, atol=1e-9)


def test_clipping_bounds_the_prediction() -> None:
    step = p_mean_variance(3 * NOISE, X_T, TIMESTEPS, SCHEDULE, variance="fixed_large", clip_x_0=True)
    assert step.x_0.abs().max() == 1.0


def test_videos_split_along_their_channel_axis() -> None:
    videos = X_T.reshape(5, 3, 2, 2, 2)
    output = torch.cat([videos, 2 * videos], 2)
    predicted, v = split_output(output, videos, 2)
    assert torch.equal(predicted, videos)
    assert torch.equal(v, 2 * videos)
    step = p_mean_variance(output, videos, TIMESTEPS, SCHEDULE, channel_axis=2)
    frame = p_mean_variance(output[:, 1], videos[:, 1], TIMESTEPS, SCHEDULE)
    assert torch.equal(step.mean[:, 1], frame.mean)
    assert torch.equal(step.log_variance[:, 1], frame.log_variance)


def test_shapes_and_variances_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(5, 2, 3, 4\)"):
        q_sample(X_0, NOISE[:, :1], TIMESTEPS, SCHEDULE)
    with pytest.raises(ShapeError):
        split_output(torch.cat([NOISE] * 3, 1), X_T)
    with pytest.raises(UsageError, match="learned_range"):
        p_mean_variance(NOISE, X_T, TIMESTEPS, SCHEDULE)
    with pytest.raises(UsageError, match="fixed_small"):
        p_mean_variance(torch.cat([NOISE, NOISE], 1), X_T, TIMESTEPS, SCHEDULE, variance="fixed_small")


def test_final_log_signal_to_noise_is_the_published_one() -> None:
    assert SCHEDULE.alphas_cumprod[999].item() == pytest.approx(4.0358e-5, rel=1e-4)
    assert math.isclose(SCHEDULE.betas[0], 1e-4, rel_tol=1e-12)
    assert math.isclose(SCHEDULE.betas[-1], 0.02, rel_tol=1e-12)

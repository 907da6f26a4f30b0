"""Properties of the losses; their numbers are pinned by the golden cases."""

from __future__ import annotations

import math

import pytest
import torch
from diffusion.reverse_steps import prior_bits_per_dimension
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.diffusion import losses
from genzoo.diffusion.process import q_sample
from genzoo.diffusion.schedule import make_schedule

SCHEDULE = make_schedule()
TIMESTEPS = torch.tensor([0, 1, 300, 999])


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X_0, NOISE, OUTPUT = randn(4, 2, 3, 5), randn(4, 2, 3, 5, seed=1), randn(4, 4, 3, 5, seed=2)
X_T = q_sample(X_0, NOISE, TIMESTEPS, SCHEDULE)
COMMON = (X_0, X_T, NOISE, TIMESTEPS, SCHEDULE)


def test_bound_does_not_move_the_prediction() -> None:
    output = OUTPUT.clone().requires_grad_()
    losses.hybrid(output, *COMMON)["vb"].sum().backward()
    assert output.grad is not None
    assert torch.equal(output.grad[:, :2], torch.zeros_like(X_0))
    assert (output.grad[:, 2:].flatten(1).abs().sum(1) > 0).all()


def test_squared_error_does_not_move_the_variance() -> None:
    output = OUTPUT.clone().requires_grad_()
    losses.hybrid(output, *COMMON)["mse"].sum().backward()
    assert output.grad is not None
    assert torch.equal(output.grad[:, 2:], torch.zeros_like(X_0))


def test_hybrid_is_the_sum_of_its_terms() -> None:
    terms = losses.hybrid(OUTPUT, *COMMON, vb_weight=0.25)
    assert torch.equal(terms["loss"], terms["mse"] + 0.25 * terms["vb"])
    assert torch.equal(terms["mse"], losses.noise_mse(OUTPUT[:, :2], *COMMON)["loss"])


def test_perfect_prediction_with_the_posterior_variance_has_no_divergence() -> None:
    perfect = torch.cat([NOISE, -torch.ones_like(NOISE)], 1)
    terms = losses.hybrid(perfect, *COMMON)
    assert torch.equal(terms["mse"], torch.zeros(4, dtype=torch.float64))
    assert terms["vb"][1:].abs().max() < 1e-9


def test_kl_trains_prediction_and_variance() -> None:
    output = OUTPUT.clone().requires_grad_()
    terms = losses.kl(output, *COMMON)
    assert torch.equal(terms["loss"], 1000 * terms["vb"])
    terms["loss"].sum().backward()
    assert output.grad is not None
    assert (output.grad.flatten(1).abs().sum(1) > 0).all()
    assert output.grad[2, :2].abs().sum() > 0
    assert output.grad[2, 2:].abs().sum() > 0


@pytest.mark.parametrize("prediction", ["noise", "x_0"])
def test_target_follows_the_prediction(prediction: str) -> None:
    target = NOISE if prediction == "noise" else X_0
    assert torch.equal(
        losses.noise_mse(target, *COMMON, prediction=prediction)["loss"], torch.zeros(4, dtype=torch.float64)
    )


@pytest.mark.parametrize("name", ["hybrid", "kl"])
def test_videos_equal_images_with_the_frames_in_space(name: str) -> None:
    def video(x: Tensor) -> Tensor:
        return x.reshape(4, -1, 3, 5, 1).permute(0, 2, 1, 3, 4)

    loss = getattr(losses, name)
    images = loss(OUTPUT, *COMMON)["loss"]
    videos = loss(video(OUTPUT), video(X_0), video(X_T), video(NOISE), TIMESTEPS, SCHEDULE, channel_axis=2)[
        "loss"
    ]
    assert torch.allclose(images, videos, rtol=1e-12)


def test_losses_of_a_sample_do_not_depend_on_its_batch() -> None:
    whole = losses.hybrid(OUTPUT, *COMMON)["loss"]
    for i in range(4):
        part = slice(i, i + 1)
        one = losses.hybrid(OUTPUT[part], X_0[part], X_T[part], NOISE[part], TIMESTEPS[part], SCHEDULE)[
            "loss"
        ]
        assert torch.allclose(one, whole[part], rtol=1e-12)


def test_discretised_likelihood_sums_to_one() -> None:
    bins = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).repeat(3, 1)
    means = torch.tensor([[-0.9], [0.1], [1.2]], dtype=torch.float64)
    scales = torch.tensor([[-1.0], [-2.5], [0.0]], dtype=torch.float64)
    total = losses.discretised_log_likelihood(bins, means, scales).exp().sum(1)
    assert torch.allclose(total, torch.ones(3, dtype=torch.float64), atol=1e-9)


def test_gaussian_divergence_of_known_pairs() -> None:
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert losses.gaussian_kl(zero, zero, zero, zero).item() == 0.0
    assert losses.gaussian_kl(one, zero, zero, zero).item() == pytest.approx(0.5)
    assert losses.gaussian_kl(zero, 2 * one, zero, zero).item() == pytest.approx(0.5 * (math.e**2 - 3))


def test_prior_term_vanishes_with_the_signal() -> None:
    far = prior_bits_per_dimension(X_0, SCHEDULE.keep(list(range(500))))
    near = prior_bits_per_dimension(X_0, SCHEDULE)
    assert (near < 1e-4).all()
    assert (far > near).all()


def test_extreme_variance_channels_stay_finite_in_float32() -> None:
    output = torch.cat([NOISE, torch.full_like(NOISE, -20.0)], 1).float().requires_grad_()
    common = [x.float() if x.is_floating_point() else x for x in COMMON[:4]]
    terms = losses.hybrid(output, *common, SCHEDULE)
    terms["loss"].sum().backward()
    assert output.grad is not None
    assert torch.isfinite(output.grad[0]).all()


def test_losses_refuse_models_they_cannot_train() -> None:
    with pytest.raises(UsageError, match="hybrid"):
        losses.noise_mse(OUTPUT, *COMMON)
    with pytest.raises(UsageError, match="learn_sigma"):
        losses.hybrid(OUTPUT[:, :2], *COMMON)

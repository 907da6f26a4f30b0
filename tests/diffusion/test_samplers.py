"""A contract that every registered sampler keeps; DDPM and DDIM against the process itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from diffusion.reverse_steps import ancestral_step, ddim_step
from torch import Tensor

import genzoo.diffusion  # noqa: F401  (declares the samplers)
from genzoo.core.errors import UsageError
from genzoo.core.registry import SAMPLERS
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion import samplers
from genzoo.diffusion.process import p_mean_variance, x_0_from_noise
from genzoo.diffusion.schedule import NoiseSchedule, make_schedule

SCHEDULE = make_schedule()
# other kinds of generation have samplers of their own
NAMES = SAMPLERS.fitting(["diffusion"])
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
STOCHASTIC = {"ddpm", "euler_ancestral"}
VARIANTS = {
    "ddim eta 1": partial(samplers.ddim, eta=1.0),
    "ddpm fixed_small": partial(samplers.ddpm, variance="fixed_small"),
    "dpm_solver_pp order 1": partial(samplers.dpm_solver_pp, order=1),
    "dpm_solver_pp order 3": partial(samplers.dpm_solver_pp, order=3),
    "dpm_solver_pp stochastic": partial(samplers.dpm_solver_pp, stochastic=True),
    "unipc order 3": partial(samplers.unipc, order=3),
}
ALL = {**{name: SAMPLERS.get(name) for name in NAMES}, **VARIANTS}

MEANS, DEVIATION = torch.tensor([-1.0, 0.5]).reshape(1, 2, 1, 1), 0.4


def streams(*positions: int, seed: int = 0) -> SampleStreams:
    return SampleStreams.from_seeds(seed, "sample", positions=positions)


def noise_like(num: int, *, seed: int = 0) -> Tensor:
    """x_T for `num` samples; one sample fills whole vector registers, so kernels treat all elements alike."""
    return torch.randn(num, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def exact_gaussian(schedule: NoiseSchedule = SCHEDULE) -> Callable[[Tensor, Tensor], Tensor]:
    """The best prediction of the noise for data from N(MEANS, DEVIATION^2), with variance channels at -1."""

    def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
        alpha = schedule.gather("alphas_cumprod", timesteps, x)
        centred = x - alpha.sqrt() * MEANS.to(x)
        noise = (1 - alpha).sqrt() * centred / (alpha * DEVIATION**2 + 1 - alpha)
        return torch.cat([noise, -torch.ones_like(noise)], 1)

    return denoise


def wavy(x: Tensor, timesteps: Tensor) -> Tensor:
    """A nonlinear stand-in whose variance channels vary within [-1, 1]."""
    t = timesteps.to(x.dtype).reshape(-1, 1, 1, 1)
    return torch.cat([x.tanh() * (1 + t / 1000), (3 * x).sin()], 1)


@pytest.mark.parametrize("name", ALL)
def test_sampler_recovers_a_gaussian(name: str) -> None:
    samples = ALL[name](exact_gaussian(), noise_like(128), SCHEDULE, streams(*range(128)), steps=250)
    assert samples.dtype == torch.float32
    # 8,192 values a channel: standard errors 0.0044 and 0.0031; first-order solvers are 0.015 off after 250
    assert torch.allclose(samples.mean((0, 2, 3)), MEANS.flatten(), atol=0.02)
    assert samples.std((0, 2, 3)).sub(DEVIATION).abs().max() < 0.025


@pytest.mark.parametrize("name", ALL)
def test_sample_depends_on_its_own_stream_only(name: str) -> None:
    x_T = noise_like(4)
    batch = ALL[name](wavy, x_T, SCHEDULE, streams(0, 1, 2, 3), steps=20)
    single = [ALL[name](wavy, x_T[i : i + 1], SCHEDULE, streams(i), steps=20) for i in range(4)]
    assert torch.allclose(batch, torch.cat(single), atol=1e-5)
    changed = ALL[name](wavy, x_T, SCHEDULE, streams(0, 1, 9, 3), steps=20)
    assert torch.equal(batch[[0, 1, 3]], changed[[0, 1, 3]])


@pytest.mark.parametrize("name", ALL)
def test_noise_is_bitwise_the_same_in_any_batch(name: str) -> None:
    def nothing(x: Tensor, timesteps: Tensor) -> Tensor:
        return torch.zeros_like(torch.cat([x, x], 1))

    x_T = noise_like(3)
    batch = ALL[name](nothing, x_T, SCHEDULE, streams(4, 5, 6), steps=20)
    for i in range(3):
        single = ALL[name](nothing, x_T[i : i + 1], SCHEDULE, streams(4 + i), steps=20)
        assert torch.equal(batch[i : i + 1], single)


@pytest.mark.parametrize("name", NAMES)
def test_only_stochastic_samplers_use_the_streams(name: str) -> None:
    first, second = (ALL[name](wavy, noise_like(2), SCHEDULE, streams(0, 1, seed=s)) for s in (0, 1))
    assert torch.equal(first, second) == (name not in STOCHASTIC)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 10])
def test_model_sees_training_timesteps_in_falling_order(name: str, steps: int) -> None:
    seen: list[Tensor] = []

    def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
        seen.append(timesteps)
        return wavy(x, timesteps)

    samples = ALL[name](denoise, noise_like(2), SCHEDULE, streams(0, 1), steps=steps)
    assert torch.isfinite(samples).all()
    times = [int(t[0]) for t in seen]
    assert all(t.dtype == torch.int64 and t.shape == (2,) for t in seen)
    assert len(set(times)) == steps
    assert times == sorted(times, reverse=True)
    assert 0 <= times[-1] <= times[0] <= 999
    # the others step from their last timestep to no noise at all
    assert (times[-1] == 0) == (name in ("ddpm", "ddim"))
    assert times[0] >= 900 or steps == 1 or (name, steps) == ("ddim", 2)


@pytest.mark.parametrize("name", NAMES)
def test_first_model_input_is_the_initial_noise(name: str) -> None:
    seen: list[Tensor] = []
    SAMPLERS.get(name)(
        lambda x, t: seen.append(x) or wavy(x, t), noise_like(2), SCHEDULE, streams(0, 1), steps=3
    )
    assert torch.allclose(seen[0], noise_like(2), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_respaced_schedules_give_their_own_training_timesteps(name: str) -> None:
    spaced, seen = SCHEDULE.respace("ddim100"), set()
    SAMPLERS.get(name)(
        lambda x, t: seen.add(int(t[0])) or wavy(x, t), noise_like(1), spaced, streams(0), steps=10
    )
    assert len(seen) == 10
    assert all(t % 10 == 0 for t in seen)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_refused(name: str, steps: int) -> None:
    with pytest.raises(UsageError):
        SAMPLERS.get(name)(wavy, noise_like(1), SCHEDULE, streams(0), steps=steps)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", ["1000", "250", "50", "10", "10,15,20"])
def test_ddpm_is_the_process_run_backwards(steps: str, clip: bool) -> None:
    spaced, x = SCHEDULE.respace(steps), noise_like(2).double()
    ours = samplers.ddpm(wavy, x, SCHEDULE, streams(0, 1), steps=steps, clip_x_0=clip)
    noise = streams(0, 1)
    for index in range(spaced.num_timesteps - 1, -1, -1):
        t = torch.full((2,), index)
        step = p_mean_variance(wavy(x, spaced.timestep_map[t]), x, t, spaced, clip_x_0=clip)
        x = ancestral_step(step, noise.randn_like(x) if index else torch.zeros_like(x), t)
    assert torch.allclose(ours, x, rtol=1e-9, atol=1e-9 * x.abs().max().item())


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [250, 50, 10, "250", "10", "10,15,20"])
def test_ddim_is_the_process_run_backwards(steps: int | str, eta: float, clip: bool) -> None:
    spaced = SCHEDULE.respace(f"ddim{steps}" if isinstance(steps, int) else steps)
    x = noise_like(2).double()
    ours = samplers.ddim(wavy, x, SCHEDULE, streams(0, 1), steps=steps, eta=eta, clip_x_0=clip)
    noise = streams(0, 1)
    for index in range(spaced.num_timesteps - 1, -1, -1):
        t = torch.full((2,), index)
        x_0 = x_0_from_noise(x, wavy(x, spaced.timestep_map[t])[:, :2], t, spaced)
        x_0 = x_0.clamp(-1, 1) if clip else x_0
        x = ddim_step(x_0, x, noise.randn_like(x), t, spaced, eta=eta)
    assert torch.allclose(ours, x, rtol=1e-9, atol=1e-9 * x.abs().max().item())


def test_ddpm_takes_fixed_variances_of_models_without_variance_channels() -> None:
    def half(x: Tensor, timesteps: Tensor) -> Tensor:
        return wavy(x, timesteps)[:, :2]

    large = samplers.ddpm(half, noise_like(2), SCHEDULE, streams(0, 1), steps=10)
    assert torch.equal(
        large, samplers.ddpm(wavy, noise_like(2), SCHEDULE, streams(0, 1), steps=10, variance="fixed_large")
    )
    small = samplers.ddpm(half, noise_like(2), SCHEDULE, streams(0, 1), steps=10, variance="fixed_small")
    assert not torch.allclose(large, small)
    with pytest.raises(UsageError, match="learned_range"):
        samplers.ddpm(half, noise_like(2), SCHEDULE, streams(0, 1), steps=10, variance="learned_range")


def test_dpm_solver_refuses_unknown_orders() -> None:
    with pytest.raises(UsageError, match="order"):
        samplers.dpm_solver_pp(wavy, noise_like(1), SCHEDULE, streams(0), order=4)

"""Samplers: plain functions from noise to clean latents, stepped by diffusers' schedulers.

All share `(denoise, x_T, schedule, generator, *, steps, ...) -> x_0`:
    denoise(x_t, timesteps) -> (b, c, ...) predicted noise, or (b, 2c, ...) with learned variance; timesteps
        (b,) int64 are those of training, whatever the respacing.
    x_T: (b, c, *spatial) standard normal, float32 or float64.   generator: where the steps' own noise comes
        from; one stream per sample (SampleStreams) makes every sample independent of its batch.
    steps: how many, or a respacing string (`respaced_timesteps`).
The keyword-only parameters are the options of a recipe's `sampler:` section.

A scheduler is built over the schedule respaced beforehand and runs through all of it. Its own spacings
differ between classes, and some of its steps assume a constant stride; over a respaced schedule every
stride is one, which makes any choice of timesteps exact. Its float32 table of alpha-bar is replaced by the
schedule's float64 one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.process import Variance
from genzoo.diffusion.schedule import NoiseSchedule, respaced_timesteps

Denoise = Callable[[Tensor, Tensor], Tensor]
Generator = SampleStreams | torch.Generator | None


def ddpm(
    denoise: Denoise,
    x_T: Tensor,
    schedule: NoiseSchedule,
    generator: Generator,
    *,
    steps: int | str = 250,
    variance: Variance | None = None,
    clip_x_0: bool = False,
) -> Tensor:
    """Ancestral sampling (DDPM Algorithm 2) at evenly spread timesteps, with the learned variance if any.

    variance: None means learned_range for a model with variance channels, else fixed_large.
    clip_x_0: clamp the predicted clean image to [-1, 1] in each step; for pixels only.
    """
    from diffusers import DDPMScheduler

    spaced = schedule.respace(steps)

    @cache
    def scheduler(kind: Variance) -> Any:
        return _over(spaced, DDPMScheduler, clip_sample=clip_x_0, variance_type=kind)

    def step(output: Tensor, t: Tensor, x: Tensor) -> Tensor:
        learned = output.shape[1] == 2 * x.shape[1]
        if variance == "learned_range" and not learned:
            raise UsageError("variance is 'learned_range' but the model output has no variance channels")
        kind = variance or ("learned_range" if learned else "fixed_large")
        kept = output if kind == "learned_range" else _noise_half(output, x)
        stepped: Tensor = scheduler(kind).step(kept, t, x, generator=_plain(generator)).prev_sample
        return stepped

    return _run(denoise, x_T, spaced, scheduler("fixed_large"), step)


def ddim(
    denoise: Denoise,
    x_T: Tensor,
    schedule: NoiseSchedule,
    generator: Generator,
    *,
    steps: int | str = 50,
    eta: float = 0.0,
    clip_x_0: bool = False,
) -> Tensor:
    """DDIM (Song et al. 2021, Eq. 12) at a constant stride; eta 0 is deterministic, eta 1 as noisy as DDPM.

    clip_x_0: clamp the predicted clean image to [-1, 1] in each step; for pixels only.
    """
    from diffusers import DDIMScheduler

    spaced = schedule.respace(f"ddim{steps}" if isinstance(steps, int) else steps)
    scheduler = _over(spaced, DDIMScheduler, clip_sample=clip_x_0)

    def step(output: Tensor, t: Tensor, x: Tensor) -> Tensor:
        options = {"eta": eta, "use_clipped_model_output": clip_x_0, "generator": _plain(generator)}
        stepped: Tensor = scheduler.step(_noise_half(output, x), int(t), x, **options).prev_sample
        return stepped

    return _run(denoise, x_T, spaced, scheduler, step)


def dpm_solver_pp(
    denoise: Denoise,
    x_T: Tensor,
    schedule: NoiseSchedule,
    generator: Generator,
    *,
    steps: int = 25,
    order: int = 2,
    stochastic: bool = False,
) -> Tensor:
    """DPM-Solver++ (Lu et al. 2022), multistep of order 1 to 3; `stochastic` is its SDE form."""
    from diffusers import DPMSolverMultistepScheduler

    if order not in (1, 2, 3):
        raise UsageError(f"dpm_solver_pp has orders 1, 2 and 3, not {order}")
    algorithm = "sde-dpmsolver++" if stochastic else "dpmsolver++"
    spaced = _above_zero(schedule, steps)
    scheduler = _over(spaced, DPMSolverMultistepScheduler, solver_order=order, algorithm_type=algorithm)
    return _run(denoise, x_T, spaced, scheduler, _noise_step(scheduler, generator))


def unipc(
    denoise: Denoise,
    x_T: Tensor,
    schedule: NoiseSchedule,
    generator: Generator,
    *,
    steps: int = 20,
    order: int = 2,
) -> Tensor:
    """UniPC (Zhao et al. 2023), a predictor-corrector for few steps."""
    from diffusers import UniPCMultistepScheduler

    spaced = _above_zero(schedule, steps)
    scheduler = _over(spaced, UniPCMultistepScheduler, solver_order=order)
    return _run(denoise, x_T, spaced, scheduler, _noise_step(scheduler, None))


def euler(
    denoise: Denoise, x_T: Tensor, schedule: NoiseSchedule, generator: Generator, *, steps: int = 50
) -> Tensor:
    """Euler steps along the probability-flow ODE (Karras et al. 2022, Algorithm 2 without churn)."""
    from diffusers import EulerDiscreteScheduler

    spaced = _above_zero(schedule, steps)
    scheduler = _over(spaced, EulerDiscreteScheduler)
    return _run(denoise, x_T, spaced, scheduler, _noise_step(scheduler, None), scaled=True)


def euler_ancestral(
    denoise: Denoise, x_T: Tensor, schedule: NoiseSchedule, generator: Generator, *, steps: int = 100
) -> Tensor:
    """Euler steps with the ancestral noise put back."""
    from diffusers import EulerAncestralDiscreteScheduler

    spaced = _above_zero(schedule, steps)
    scheduler = _over(spaced, EulerAncestralDiscreteScheduler)
    return _run(denoise, x_T, spaced, scheduler, _noise_step(scheduler, generator), scaled=True)


def heun(
    denoise: Denoise, x_T: Tensor, schedule: NoiseSchedule, generator: Generator, *, steps: int = 25
) -> Tensor:
    """Heun's second-order steps (Karras et al. 2022): twice the model calls of Euler, less one."""
    from diffusers import HeunDiscreteScheduler

    spaced = _above_zero(schedule, steps)
    scheduler = _over(spaced, HeunDiscreteScheduler)
    return _run(denoise, x_T, spaced, scheduler, _noise_step(scheduler, None), scaled=True)


def _above_zero(schedule: NoiseSchedule, steps: int) -> NoiseSchedule:
    """`steps` evenly spread timesteps without 0: these solvers step from the last one to no noise at all."""
    if not 1 <= steps < schedule.num_timesteps:
        raise UsageError(
            f"cannot take {steps} steps over {schedule.num_timesteps} timesteps",
            fix=f"choose steps between 1 and {schedule.num_timesteps - 1}",
        )
    return schedule.keep(respaced_timesteps(schedule.num_timesteps, steps + 1)[1:])


def _over(spaced: NoiseSchedule, scheduler_class: Callable[..., Any], **options: Any) -> Any:
    """A diffusers scheduler that runs through every timestep of a schedule."""
    scheduler = scheduler_class(
        num_train_timesteps=spaced.num_timesteps,
        trained_betas=spaced.betas.tolist(),
        timestep_spacing="trailing",
        prediction_type="epsilon",
        **options,
    )
    scheduler.alphas_cumprod = spaced.alphas_cumprod
    scheduler.set_timesteps(spaced.num_timesteps)
    return scheduler


def _run(
    denoise: Denoise,
    x_T: Tensor,
    spaced: NoiseSchedule,
    scheduler: Any,
    step: Callable[[Tensor, Tensor, Tensor], Tensor],
    *,
    scaled: bool = False,
) -> Tensor:
    """The sampling loop. scaled: the scheduler integrates x / sqrt(alpha-bar) = x sqrt(sigma^2 + 1)."""
    original = spaced.timestep_map.tolist()
    # the schedulers' own init_noise_sigma leaves out the signal's share of x_T
    x = x_T * float((scheduler.sigmas[0].double() ** 2 + 1).sqrt()) if scaled else x_T
    for t in scheduler.timesteps:
        x_t = scheduler.scale_model_input(x, t)
        timesteps = torch.full((len(x),), original[int(t)], device=x.device)
        x = step(denoise(x_t, timesteps).to(x.dtype), t, x)
    return x


def _noise_step(scheduler: Any, generator: Generator) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    options = {} if generator is None else {"generator": _plain(generator)}

    def step(output: Tensor, t: Tensor, x: Tensor) -> Tensor:
        stepped: Tensor = scheduler.step(_noise_half(output, x), t, x, **options).prev_sample
        return stepped

    return step


def _noise_half(output: Tensor, x: Tensor) -> Tensor:
    return output[:, : x.shape[1]]


def _plain(generator: Generator) -> list[torch.Generator] | torch.Generator | None:
    return generator.generators if isinstance(generator, SampleStreams) else generator

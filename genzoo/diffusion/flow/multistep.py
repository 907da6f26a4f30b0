"""Solvers that remember: DPM-Solver++ written for any path, and diffusers' UniPC on the linear one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.flow.paths import Flow, x_1_from_velocity
from genzoo.diffusion.flow.solvers import Velocity, time_grid


def flow_dpm_solver_pp(
    velocity: Velocity,
    x: Tensor,
    flow: Flow,
    generator: SampleStreams,
    *,
    steps: int = 25,
    order: int = 2,
    stochastic: bool = False,
    shift: float = 1.0,
) -> Tensor:
    """DPM-Solver++ (Lu et al. 2022), multistep of order 1 to 3, one model call a step.

    stochastic: its SDE form, of order 1 or 2. On the linear path order 1 is Euler's method.
    """
    if order not in ((1, 2) if stochastic else (1, 2, 3)):
        kind = "orders 1 and 2 in its SDE form" if stochastic else "orders 1, 2 and 3"
        raise UsageError(f"flow_dpm_solver_pp has {kind}, not {order}")
    noise = generator if stochastic else None
    return dpm_solver_pp(velocity, x, flow, time_grid(flow, steps, shift), noise, order=order)


def dpm_solver_pp(
    velocity: Velocity,
    x: Tensor,
    flow: Flow,
    times: Sequence[float],
    noise: SampleStreams | None,
    *,
    order: int,
) -> Tensor:
    """The solver over any times; with `noise`, its SDE form.

    The first and the last step are of order 1, where the log-SNR may be infinite; then they are exact in it.
    """
    levels = [_Level(flow, t) for t in times]
    found: list[Tensor] = []  # predicted data of the last steps, newest first
    for index, (here, after) in enumerate(itertools.pairwise(levels)):
        data = x_1_from_velocity(x, velocity(x, here.t), flow.at(here.t, x))
        found = [data, *found][:3]
        left = len(levels) - 2 - index
        # few steps end with lower orders, which are steadier towards no noise at all
        lowered = min(order, len(found), 1 if not left else 2 if left == 1 and len(levels) <= 15 else 3)
        past = [levels[index - back] for back in range(1, lowered)]
        x = _step(x, here, after, found[:lowered], past, noise)
    return x


class _Level:
    """One time's coefficients as numbers; log_snr is half the logarithm of the signal-to-noise ratio."""

    def __init__(self, flow: Flow, t: float) -> None:
        c = flow.coefficients(t)
        self.t, self.alpha, self.sigma = t, float(c.alpha), float(c.sigma)
        if self.alpha and self.sigma:
            self.log_snr = math.log(self.alpha / self.sigma)
        else:
            self.log_snr = math.inf if self.alpha else -math.inf


def _step(
    x: Tensor,
    here: _Level,
    after: _Level,
    data: Sequence[Tensor],
    past: Sequence[_Level],
    noise: SampleStreams | None,
) -> Tensor:
    step = after.log_snr - here.log_snr
    shrink = math.exp(-step)
    # the SDE form removes as much noise again as it then adds
    decay, length = (shrink**2, 2 * step) if noise else (shrink, step)
    kept = after.sigma / here.sigma * (shrink if noise else 1.0)
    x = kept * x + after.alpha * _integral(data, past, here, step, decay, length)
    if noise is None:
        return x
    return x + after.sigma * math.sqrt(1 - decay) * noise.randn_like(x)


def _integral(
    data: Sequence[Tensor], past: Sequence[_Level], here: _Level, step: float, decay: float, length: float
) -> Tensor:
    """The exponentially weighted integral of the predicted data, extrapolated from its last values."""
    total = (1 - decay) * data[0]
    if len(data) == 1:
        return total
    r_0 = (here.log_snr - past[0].log_snr) / step
    slope = (data[0] - data[1]) / r_0
    if len(data) == 2:
        return total + 0.5 * (1 - decay) * slope
    r_1 = (past[0].log_snr - past[1].log_snr) / step
    change = slope - (data[1] - data[2]) / r_1
    slope, curvature = slope + r_0 / (r_0 + r_1) * change, change / (r_0 + r_1)
    first, second = (decay - 1) / length + 1, (decay - 1 + length) / length**2 - 0.5
    return total + first * slope - second * curvature


def flow_unipc(
    velocity: Velocity,
    x: Tensor,
    flow: Flow,
    generator: SampleStreams | None,
    *,
    steps: int = 20,
    order: int = 2,
    shift: float = 1.0,
) -> Tensor:
    """UniPC (Zhao et al. 2023), a predictor-corrector through diffusers; for the linear path only."""
    from diffusers import UniPCMultistepScheduler

    if flow.path != "linear":
        raise UsageError(f"flow_unipc follows the linear path, not {flow.path}", fix="use flow_dpm_solver_pp")
    # its own shift acts twice; handed over unshifted, sigmas are taken as they are
    scheduler = UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", solver_order=order
    )
    scheduler.set_timesteps(sigmas=1 - np.array(time_grid(flow, steps, shift)[:-1]))
    return step_through(velocity, x, scheduler)


def step_through(velocity: Velocity, x: Tensor, scheduler: Any) -> Tensor:
    """x through all steps of a diffusers flow scheduler, which differentiates by the noise share."""
    for sigma, timestep in zip(scheduler.sigmas[:-1].tolist(), scheduler.timesteps, strict=True):
        x = scheduler.step(-velocity(x, 1 - sigma), timestep, x).prev_sample.to(x.dtype)
    return x

"""Samplers of a flow: plain functions from noise at t = 0 to data at t = 1 along a velocity.

All share `(velocity, x, flow, generator, *, steps, ...) -> x_1`:
    velocity(x, t) -> (b, c, ...); t is one number for the whole batch.
    x: (b, c, *spatial) standard normal, float32 or float64.   flow: the path, and the times to cover.
    generator: one stream per sample, for solvers that add noise.   steps: how many intervals, hence model
    calls for a first-order solver.   shift: above 1 spends more steps near the noise (see `flow.times`).
Coefficients are float64. The keyword-only parameters are the options of a recipe's `sampler:` section.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.flow.paths import Flow
from genzoo.diffusion.flow.times import shifted

Velocity = Callable[[Tensor, float], Tensor]
Stage = tuple[float, Sequence[float]]  # node, and weights of the slopes before it

# explicit Runge-Kutta methods: the stages after the first, and the weights of all slopes
RUNGE_KUTTA: dict[str, tuple[Sequence[Stage], Sequence[float]]] = {
    "euler": ((), (1.0,)),
    "midpoint": (((1 / 2, (1 / 2,)),), (0.0, 1.0)),
    "heun": (((1.0, (1.0,)),), (1 / 2, 1 / 2)),
    "heun3": (((1 / 3, (1 / 3,)), (2 / 3, (0.0, 2 / 3))), (1 / 4, 0.0, 3 / 4)),
    "rk4": (
        ((1 / 3, (1 / 3,)), (2 / 3, (-1 / 3, 1.0)), (1.0, (1.0, -1.0, 1.0))),
        (1 / 8, 3 / 8, 3 / 8, 1 / 8),
    ),
}


def flow_euler(
    velocity: Velocity,
    x: Tensor,
    flow: Flow,
    generator: SampleStreams | None,
    *,
    steps: int = 50,
    shift: float = 1.0,
) -> Tensor:
    """Euler steps along the velocity, one model call each."""
    return follow(velocity, x, time_grid(flow, steps, shift), "euler")


def flow_heun(
    velocity: Velocity,
    x: Tensor,
    flow: Flow,
    generator: SampleStreams | None,
    *,
    steps: int = 25,
    shift: float = 1.0,
) -> Tensor:
    """Heun's second-order steps (the trapezoidal rule), two model calls each."""
    return follow(velocity, x, time_grid(flow, steps, shift), "heun")


def flow_ode(
    velocity: Velocity,
    x: Tensor,
    flow: Flow,
    generator: SampleStreams | None,
    *,
    steps: int = 25,
    method: Literal["euler", "midpoint", "heun", "heun3", "rk4"] = "rk4",
    shift: float = 1.0,
) -> Tensor:
    """Another explicit Runge-Kutta method: one to four model calls a step."""
    if method not in RUNGE_KUTTA:
        raise UsageError(f"there is no method {method!r}", fix=f"use one of {', '.join(RUNGE_KUTTA)}")
    return follow(velocity, x, time_grid(flow, steps, shift), method)


def time_grid(flow: Flow, steps: int, shift: float = 1.0, *, end: float | None = None) -> list[float]:
    """steps + 1 times from the flow's start to its end (or `end`), evenly spread before the shift."""
    if steps < 1:
        raise UsageError(f"cannot take {steps} steps", fix="choose steps of at least 1")
    if not shift > 0:
        raise UsageError(f"shift is {shift}", fix="use one above 0; 1 shifts nothing")
    share = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    length = (flow.end if end is None else end) - flow.start
    return (flow.start + length * (1 - shifted(share, shift))).tolist()


def follow(velocity: Velocity, x: Tensor, times: Sequence[float], method: str) -> Tensor:
    """x carried along the velocity through all of `times`, in either direction."""
    for t, after in itertools.pairwise(times):
        x = _runge_kutta_step(velocity, x, t, after - t, method)
    return x


def _runge_kutta_step(velocity: Velocity, x: Tensor, t: float, step: float, method: str) -> Tensor:
    stages, weights = RUNGE_KUTTA[method]
    slopes = [velocity(x, t)]
    for node, parts in stages:
        slopes.append(velocity(x + step * _combined(slopes, parts), t + node * step))
    return x + step * _combined(slopes, weights)


def _combined(slopes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    first, *rest = [weight * slope for slope, weight in zip(slopes, weights, strict=True) if weight]
    for part in rest:
        first = first + part
    return first

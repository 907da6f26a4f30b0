"""Paths from noise to data: x_t = alpha x_1 + sigma noise, with velocity d_alpha x_1 + d_sigma noise.

x_1 are the clean latents, which the Gaussian tasks call x_0. Coefficients are float64 functions of t; they
meet latents in the latents' own dtype. Formulas: Ma et al. 2024, "SiT", sections 2 and A.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from genzoo.core.errors import ShapeError, UsageError, did_you_mean

FlowPrediction = Literal["velocity", "x_0", "noise", "score"]
FLOW_PREDICTIONS: tuple[FlowPrediction, ...] = ("velocity", "x_0", "noise", "score")


class Coefficients(NamedTuple):
    """alpha, sigma and their derivatives by t; all of one shape, float64 until they are spread."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor

    @property
    def determinant(self) -> Tensor:
        """d_alpha sigma - alpha d_sigma: 1 on the linear path, pi/2 on gvp."""
        return self.d_alpha * self.sigma - self.alpha * self.d_sigma

    @property
    def diffusion(self) -> Tensor:
        """lambda = sigma^2 d_alpha / alpha - sigma d_sigma, which turns a score into a velocity."""
        return self.sigma**2 * self.d_alpha / self.alpha - self.sigma * self.d_sigma

    def spread(self, like: Tensor) -> Coefficients:
        """The same, (b,) -> (b, 1, ...) in the dtype and on the device of `like`: (b, ...)."""
        shape = (-1, *[1] * (like.ndim - 1))
        return Coefficients(*(part.to(like).reshape(shape) for part in self))


def linear(t: Tensor) -> Coefficients:
    """alpha = t, sigma = 1 - t: rectified flow's straight lines."""
    one = torch.ones_like(t)
    return Coefficients(t, 1 - t, one, -one)


def gvp(t: Tensor) -> Coefficients:
    """alpha = sin(pi t / 2), sigma = cos(pi t / 2): constant variance for data of variance one."""
    angle, rate = math.pi / 2 * t, math.pi / 2
    return Coefficients(angle.sin(), angle.cos(), rate * angle.cos(), -rate * angle.sin())


def vp(t: Tensor) -> Coefficients:
    """The variance-preserving diffusion with betas 0.1 to 20; sigma's derivative is infinite at t = 1."""
    low, high = 0.1, 20.0
    back = 1 - t
    log_alpha = -(back**2) * (high - low) / 4 - back * low / 2
    alpha = log_alpha.exp()
    d_alpha = alpha * (back * (high - low) / 2 + low / 2)
    sigma = (-torch.expm1(2 * log_alpha)).sqrt()
    return Coefficients(alpha, sigma, d_alpha, -alpha * d_alpha / sigma)


PATHS: dict[str, Callable[[Tensor], Coefficients]] = {"linear": linear, "gvp": gvp, "vp": vp}


@dataclass(frozen=True)
class Flow:
    """A path and the times that sampling covers.   start, end: in [0, 1], noise first."""

    path: str = "linear"
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if self.path not in PATHS:
            fix = did_you_mean(self.path, PATHS) or f"known: {', '.join(PATHS)}"
            raise UsageError(f"there is no path {self.path!r}", fix=fix)

    def coefficients(self, times: Tensor | float) -> Coefficients:
        """Of float64 arithmetic at `times`: (b,), or one number."""
        return PATHS[self.path](torch.as_tensor(times, dtype=torch.float64).cpu())

    def at(self, times: Tensor | float, like: Tensor) -> Coefficients:
        """Coefficients at `times`, (b,) or one number, shaped to broadcast over `like` (b, ...)."""
        return self.coefficients(times).spread(like)


def flow_for(path: str, prediction: FlowPrediction) -> Flow:
    """The path over the times at which `prediction` determines a velocity, as SiT samples.

    Noise and score say nothing of the velocity at t = 0, x_0 nothing at t = 1; vp ends a thousandth early.
    """
    if path == "vp":
        return Flow(path, 0.0, 1 - 1e-3)
    if prediction == "velocity":
        return Flow(path)
    return Flow(path, 0.0 if prediction == "x_0" else 1e-3, 1 - 1e-3)


def training_interval(path: str, prediction: FlowPrediction) -> tuple[float, float]:
    """The times that training draws from, lowest and highest; as in SiT."""
    if path == "vp":
        return 0.0, 1 - 1e-5
    flow = flow_for(path, prediction)
    return flow.start, flow.end


def interpolate(x_1: Tensor, noise: Tensor, times: Tensor, flow: Flow) -> Tensor:
    """x_t between noise and clean latents.   x_1, noise: (b, ...).   times: (b,).   Raises ShapeError."""
    if x_1.shape != noise.shape:
        raise ShapeError(f"x_1 has shape {tuple(x_1.shape)} but noise {tuple(noise.shape)}; make them equal")
    c = flow.at(times, x_1)
    return c.alpha * x_1 + c.sigma * noise


def path_velocity(x_1: Tensor, noise: Tensor, times: Tensor, flow: Flow) -> Tensor:
    """The velocity of the line between this noise and these latents, which the network learns on average."""
    c = flow.at(times, x_1)
    return c.d_alpha * x_1 + c.d_sigma * noise


def x_1_from_velocity(x_t: Tensor, velocity: Tensor, c: Coefficients) -> Tensor:
    """The clean latents that a velocity at x_t points to."""
    return (c.sigma * velocity - c.d_sigma * x_t) / c.determinant


def noise_from_velocity(x_t: Tensor, velocity: Tensor, c: Coefficients) -> Tensor:
    """The noise that a velocity at x_t comes from."""
    return (c.d_alpha * x_t - c.alpha * velocity) / c.determinant


def score_from_velocity(x_t: Tensor, velocity: Tensor, c: Coefficients) -> Tensor:
    """The gradient of the log-density at x_t; infinite where sigma is 0."""
    return -noise_from_velocity(x_t, velocity, c) / c.sigma


def velocity_from(prediction: FlowPrediction, x_t: Tensor, output: Tensor, c: Coefficients) -> Tensor:
    """The velocity that a prediction of any kind amounts to."""
    if prediction == "velocity":
        return output
    if prediction == "x_0":
        return c.d_alpha * output + c.d_sigma * (x_t - c.alpha * output) / c.sigma
    score = -output / c.sigma if prediction == "noise" else output
    return c.d_alpha / c.alpha * x_t + c.diffusion * score

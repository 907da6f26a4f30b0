"""Stochastic sampling of a flow: dx = (v + w s) dt + sqrt(2 w) dW, s the score that v implies.

Any w(t) >= 0 has the marginals of the ODE (Ma et al. 2024, Eq. 4); more noise corrects more of the errors
made so far, and needs more steps.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.flow.paths import Flow, score_from_velocity, x_1_from_velocity
from genzoo.diffusion.flow.solvers import Velocity, time_grid

Form = Literal["sigma", "linear", "constant", "sbdm", "decreasing", "increasing_decreasing"]
FORMS: tuple[Form, ...] = ("sigma", "linear", "constant", "sbdm", "decreasing", "increasing_decreasing")
LastStep = Literal["mean", "euler", "tweedie", "none"]


def flow_sde(
    velocity: Velocity,
    x: Tensor,
    flow: Flow,
    generator: SampleStreams,
    *,
    steps: int = 250,
    form: Form = "sigma",
    norm: float = 1.0,
    method: Literal["euler", "heun"] = "euler",
    last_step: LastStep = "mean",
    last_step_size: float | None = None,
    shift: float = 1.0,
) -> Tensor:
    """Euler-Maruyama or stochastic Heun steps, then one without noise.

    steps: model calls of the Euler form, the last step included.   form, norm: w(t), of size norm.
    last_step: "mean" follows the drift alone, "euler" the velocity, "tweedie" jumps to the expected data,
        "none" leaves the last step out and covers all times with noisy ones.
    last_step_size: None takes 1/steps, which shrinks with the steps as it has to; SiT's is 0.04 at 250.
    """
    _check(flow, form, method, last_step, steps, last_step_size)
    if last_step == "none":
        times = time_grid(flow, steps, shift)
    else:
        size = 1 / steps if last_step_size is None else last_step_size
        times = time_grid(flow, steps - 1, shift, end=1 - size) if steps > 1 else [flow.start]
    for t, after in itertools.pairwise(times):
        x = noisy_step(velocity, x, flow, t, after - t, generator, form=form, norm=norm, method=method)
    return (
        x
        if last_step == "none"
        else final_step(velocity, x, flow, times[-1], last_step, form=form, norm=norm)
    )


def _check_flow(flow: Flow, options: Mapping[str, Any]) -> None:
    """As sampling does, of a section's options; those left out are the function's own."""
    own = {name: one.default for name, one in inspect.signature(flow_sde).parameters.items()}
    names = ("form", "method", "last_step", "steps", "last_step_size")
    _check(flow, *(options.get(name, own[name]) for name in names))


flow_sde.check_flow = _check_flow  # type: ignore[attr-defined]


def noisy_step(
    velocity: Velocity,
    x: Tensor,
    flow: Flow,
    t: float,
    step: float,
    generator: SampleStreams,
    *,
    form: Form,
    norm: float,
    method: str,
) -> Tensor:
    """One step of the SDE from t to t + step."""
    w = diffusion(form, norm, t, flow)
    moved = math.sqrt(2 * w * step) * generator.randn_like(x)
    if method == "euler":
        return x + step * drift(velocity, x, flow, t, w) + moved
    x = x + moved
    before = drift(velocity, x, flow, t, w)
    ahead = diffusion(form, norm, t + step, flow)
    after = drift(velocity, x + step * before, flow, t + step, ahead)
    return x + step * (before + after) / 2


def final_step(
    velocity: Velocity, x: Tensor, flow: Flow, t: float, kind: LastStep, *, form: Form, norm: float
) -> Tensor:
    """From t to 1 without noise."""
    if kind == "mean":
        return x + (1 - t) * drift(velocity, x, flow, t, diffusion(form, norm, t, flow))
    slope = velocity(x, t)
    return x + (1 - t) * slope if kind == "euler" else x_1_from_velocity(x, slope, flow.at(t, x))


def drift(velocity: Velocity, x: Tensor, flow: Flow, t: float, w: float) -> Tensor:
    """v + w s at one time."""
    slope = velocity(x, t)
    return slope + w * score_from_velocity(x, slope, flow.at(t, x)) if w else slope


def diffusion(form: Form, norm: float, t: float, flow: Flow) -> float:
    """w(t), half the squared size of the noise per unit of time."""
    if form in ("sigma", "sbdm"):
        c = flow.coefficients(t)
        return norm * float(c.sigma if form == "sigma" else c.diffusion)
    return {
        "constant": norm,
        "linear": norm * (1 - t),
        "decreasing": (norm * math.cos(math.pi * t) + 1) ** 2 / 4,
        "increasing_decreasing": norm * math.sin(math.pi * t) ** 2,
    }[form]


def _check(
    flow: Flow, form: str, method: str, last_step: str, steps: int, last_step_size: float | None
) -> None:
    if form not in FORMS:
        raise UsageError(f"flow_sde has no form {form!r}", fix=f"use one of {', '.join(FORMS)}")
    if method not in ("euler", "heun"):
        raise UsageError(f"flow_sde has no method {method!r}", fix="use euler or heun")
    if last_step not in ("mean", "euler", "tweedie", "none"):
        raise UsageError(f"flow_sde has no last_step {last_step!r}", fix="use mean, euler, tweedie or none")
    if form == "sbdm" and float(flow.coefficients(flow.start).alpha) == 0:
        raise UsageError(
            f"form sbdm is infinite at t = 0 of the {flow.path} path, where alpha is 0",
            fix="use form sigma; on a straight path it differs by the factor 1/t alone",
        )
    if steps < 1:
        raise UsageError(f"cannot take {steps} steps", fix="choose steps of at least 1")
    if last_step_size is not None and not 0 < last_step_size < 1 - flow.start:
        raise UsageError(
            f"last_step_size is {last_step_size}", fix="use one between 0 and 1, or leave it out for 1/steps"
        )

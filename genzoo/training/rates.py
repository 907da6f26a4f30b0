"""Learning rates and weight decay as pure functions of the optimizer step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from genzoo.core.errors import RecipeError

LAST_RATE = 1e-7  # where diffusers' polynomial ends

Schedule = Literal[
    "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial",
    "hold_linear", "hold_cosine", "hold_exponential", "bent_linear",
]  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """How the learning rate, and the weight decay, change over a run: options of every `optim:` section.

    schedule: those of `diffusers.optimization` by their names there, with its defaults (one cycle, so that
    restarts change nothing; the polynomial of degree 1 ends at 1e-7); or, over the share of the run after the
    warm-up, "hold_linear", "hold_cosine" and "hold_exponential", which stay at the peak for the share `hold`
    and then fall to `final` times the peak, and "bent_linear", which falls in two straight lines that meet
    at `hold`, the first one half as steep as a single line would be. warmup_steps: of a straight rise from
    `warmup_start` times the peak. hold, final and warmup_start belong to the latter four.
    final_weight_decay: of the last step, approached on half a cosine; None keeps weight_decay.
    """

    schedule: Schedule = "constant"
    warmup_steps: int = 0
    warmup_start: float = 0.0
    hold: float = 0.0
    final: float = 0.0
    final_weight_decay: float | None = None

    def __post_init__(self) -> None:
        names = Schedule.__args__  # type: ignore[attr-defined]
        if self.schedule not in names:
            raise RecipeError(f"optim.schedule: {self.schedule!r} is not one of {', '.join(names)}")
        if self.warmup_steps < 0:
            raise RecipeError(f"optim.warmup_steps: {self.warmup_steps} is negative")
        given = {name: getattr(self, name) for name in ("warmup_start", "hold", "final")}
        for name, value in given.items():
            if not 0 <= value <= 1 or (name == "hold" and value == 1):
                raise RecipeError(f"optim.{name}: must be a share below 1, not {value}")
            if value and self.schedule not in FALLS:
                raise RecipeError(f"optim.{name}: {self.schedule} has none; use {', '.join(FALLS)}")
        if self.schedule == "hold_exponential" and not self.final:
            raise RecipeError("optim.final: hold_exponential falls to a share above 0, such as 0.01")


def rate_curve(curve: Curve, total_steps: int, *, peak: float) -> Callable[[int], float]:
    """Step -> share of the peak rate; a run shorter than its warm-up ends while it rises."""
    if curve.schedule in FALLS:
        return _own(curve, total_steps)
    if curve.schedule == "polynomial" and peak <= LAST_RATE:
        raise RecipeError(f"optim.lr: a polynomial falls to {LAST_RATE}, and {peak} is no more than that")
    return _as_in_diffusers(curve, total_steps, peak)


def decay_at(step: int, total_steps: int, *, start: float, end: float) -> float:
    """Weight decay on half a cosine from the first step's to the last step's."""
    done = step / max(total_steps - 1, 1)
    return end + (start - end) * (0.5 + 0.5 * math.cos(math.pi * done))


def _own(curve: Curve, total_steps: int) -> Callable[[int], float]:
    fall, warmup = FALLS[curve.schedule], curve.warmup_steps

    def share(step: int) -> float:
        if step < warmup:
            return curve.warmup_start + (1 - curve.warmup_start) * step / warmup
        return fall((step - warmup) / max(total_steps - 1 - warmup, 1), curve.hold, curve.final)

    return share


def _linear(done: float, hold: float, final: float) -> float:
    return 1.0 if done < hold else final + (1 - final) * (1 - done) / (1 - hold)


def _cosine(done: float, hold: float, final: float) -> float:
    passed = max(0.0, done - hold) / (1 - hold)
    return final + (1 - final) * (0.5 + 0.5 * math.cos(math.pi * passed))


def _exponential(done: float, hold: float, final: float) -> float:
    return math.exp(max(0.0, done - hold) / (1 - hold) * math.log(final))


def _bent(done: float, hold: float, final: float) -> float:
    bend = (1 + final + (1 - final) * (1 - hold)) / 2
    if done < hold:
        return 1 + (bend - 1) * done / hold
    return final + (bend - final) * (1 - done) / (1 - hold)


FALLS: dict[str, Callable[[float, float, float], float]] = {
    "hold_linear": _linear,
    "hold_cosine": _cosine,
    "hold_exponential": _exponential,
    "bent_linear": _bent,
}


def _as_in_diffusers(curve: Curve, total_steps: int, peak: float) -> Callable[[int], float]:
    warmup, fall = curve.warmup_steps, _FALLS_TO_THE_END[curve.schedule]
    length = max(1, total_steps - warmup)

    def share(step: int) -> float:
        if step < warmup:
            return step / warmup
        return fall((step - warmup) / length, (total_steps - step) / length, peak)

    return share


def _whole_cosine(done: float, left: float, peak: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def _polynomial(done: float, left: float, peak: float) -> float:
    return ((peak - LAST_RATE) * (1 - done) + LAST_RATE) / peak


# (share done, share left, peak rate) -> share of the peak, in the order of diffusers' arithmetic
_FALLS_TO_THE_END: dict[str, Callable[[float, float, float], float]] = {
    "constant": lambda done, left, peak: 1.0,
    "constant_with_warmup": lambda done, left, peak: 1.0,
    "linear": lambda done, left, peak: left,
    "cosine": _whole_cosine,
    "cosine_with_restarts": _whole_cosine,
    "polynomial": _polynomial,
}

"""Guidance by a control beside guidance by the label: how much each of four predictions counts.

Four logits at a scale: with the label or the null class (c, u), without the control or with it (0, 1). With
s the control's strength and t the label's guidance there, which grows from 0 to `guidance_scale - 1`:

    both_halves      (1 - s) g_0 + s g_1,  g = (1 + t) c - t u
    class_half_only  (1 + t) (c_0 + s (c_1 - c_0)) - t u_0
    additive         g_0 + s (c_1 - c_0)
    pix2pix          u_0 + s (u_1 - u_0) + (1 + t) (c_1 - u_1)            Brooks et al. 2023, control first
    ramped           c_0 + (s + a r) (c_1 - c_0) + t (c_0 - u_0),  r from 0 to 1 over the scales
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from genzoo.autoregression.filters import scale_ratio
from genzoo.autoregression.sampling import Weight
from genzoo.core.errors import UsageError, did_you_mean
from genzoo.families.car.control.mixing import mixture, negligible

Halves = tuple[float, float]
DEFAULT = "both_halves"

# (s, t) -> weights of (c_0, u_0) and of (c_1, u_1)
FORMS: Mapping[str, Callable[[float, float], tuple[Halves, Halves]]] = {
    "class_half_only": lambda s, t: (((1 + t) * (1 - s), -t), ((1 + t) * s, 0.0)),
    "additive": lambda s, t: ((1 + t - s, -t), (s, 0.0)),
    "pix2pix": lambda s, t: ((0.0, 1 - s), (1 + t, s - 1 - t)),
    "ramped": lambda s, t: ((1 + t - s, -t), (s, 0.0)),
}
AGAINST = ("base", "grey")


@dataclass(frozen=True)
class ControlGuidance:
    """How a control guides.

    form: see above; all but the first take one control, and run both halves whatever the guidance.   ramp: a,
    for "ramped".   against: what index 0 stands for, the frozen "base" or the CAR under a "grey" control,
    which a run knows that was trained with control_dropout.
    """

    form: str = DEFAULT
    ramp: float = 0.0
    against: str = "base"

    def __post_init__(self) -> None:
        _one_of("control_guidance", self.form, (DEFAULT, *FORMS))
        _one_of("control_against", self.against, AGAINST)
        is_number = isinstance(self.ramp, (int, float)) and not isinstance(self.ramp, bool)
        if not is_number or not math.isfinite(self.ramp):
            raise UsageError(f"control_ramp is {self.ramp!r}", fix="use a number such as 1.5")
        if self.ramp and self.form != "ramped":
            raise UsageError("control_ramp is of one form only", fix="add control_guidance=ramped")

    @property
    def takes_both_halves(self) -> bool:
        """Whether the null class is asked even where nothing guides towards the label."""
        return self.form != DEFAULT

    def __str__(self) -> str:
        parts = [] if self.form == DEFAULT else [self.form]
        parts += [f"ramp {self.ramp:g}"] if self.ramp else []
        return ", ".join(parts + (["against grey"] if self.against == "grey" else []))

    def weights(
        self, strengths: Sequence[Sequence[float]], num_scales: int, guidance_scale: float
    ) -> list[list[Weight]]:
        """Weights of what index 0 stands for and of each control, per scale; 0 for what need not be run."""
        if self.form == DEFAULT:
            return mixture(strengths, num_scales)
        (strength,) = strengths
        rows: list[list[Weight]] = [[], []]
        for scale, given in enumerate(strength):
            ratio = scale_ratio(scale, num_scales)
            pairs = FORMS[self.form](given + self.ramp * ratio, (guidance_scale - 1) * ratio)
            for row, pair in zip(rows, pairs, strict=True):
                row.append(0.0 if all(map(negligible, pair)) else pair)
        return rows

    def require(self, num_controls: int) -> None:
        """Raise UsageError unless it fits as many controls."""
        if self == ControlGuidance() or num_controls == 1:
            return
        if not num_controls:
            raise UsageError("nothing guides without a control", fix="give --control edges.png")
        fix = f"leave the others out, or guide by {DEFAULT} against the base"
        raise UsageError(f"{num_controls} controls, and this guidance is by one", fix=fix)


def _one_of(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        hint = did_you_mean(str(value), choices) or f"use one of {', '.join(choices)}"
        raise UsageError(f"{name} is {value!r}", fix=hint)

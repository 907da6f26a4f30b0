"""Several controls at their strengths: which goes to which run, and how strong it is at each scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from genzoo.autoregression.sampling import Weight
from genzoo.core.errors import UsageError, did_you_mean

Strength: TypeAlias = float | str | Sequence[float]
"""Of one control: a number, one for each scale, or "early:m", "late:m", "linear:a:b"."""

LARGEST = 10.0
SMALLEST_WEIGHT = 1e-9  # below this a weight is what rounding left of 0
NAMED = "write early:2 (the first two scales only), late:2 (all but these), or linear:0:1 (from 0 to 1)"

T = TypeVar("T")


def strengths_of(given: Strength | Sequence[Strength] | None, num_controls: int, num_scales: int) -> Tensor:
    """Strengths (controls, scales) float64; 1 everywhere when left out. Raises UsageError.

    given: for one control its strength, for several a strength each.
    """
    if given is None:
        return torch.ones(num_controls, num_scales, dtype=torch.float64)
    if num_controls == 0:
        if isinstance(given, (int, float)) and given == 0:
            return torch.ones(0, num_scales, dtype=torch.float64)
        raise UsageError("control_scale needs a control", fix="give --control edges.png")
    each: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
    if num_controls == 1 and len(each) > 1:
        each = [each]  # of the one control, for each scale
    if len(each) != num_controls:
        controls, strengths = _count(num_controls, "control"), _count(len(each), "strength")
        raise UsageError(f"{controls}, but control_scale has {strengths}", fix="give each control one")
    rows = [_over_scales(strength, num_scales) for strength in each]
    return torch.tensor(rows, dtype=torch.float64)


def mixture(strengths: Sequence[Sequence[float]], num_scales: int) -> list[list[Weight]]:
    """Weights of the base alone and of each control, per scale: L = (1 - sum s_j) L_0 + sum s_j L_j.

    The form with weights, not with differences: it gives the bits of the one that has weight 1.
    """
    alone = [1.0 - sum(row[scale] for row in strengths) for scale in range(num_scales)]
    return [[0.0 if negligible(weight) else weight for weight in row] for row in (alone, *strengths)]


def negligible(weight: float) -> bool:
    """Whether a weight stands for 0."""
    return abs(weight) < SMALLEST_WEIGHT


def by_extractor(own: str, task: T, others: Mapping[str, tuple[str, T]]) -> dict[str, T]:
    """Tasks by the name of their extractor, the own one first. Raises UsageError when a name is there twice.

    others: name and task by the place of their run.
    """
    found = {own: task}
    for place, (name, other) in others.items():
        if name in found:
            raise UsageError(
                f"two runs follow {name!r} controls, so these could go to either",
                where=place,
                fix="leave one of the runs out",
            )
        found[name] = other
    return found


def named_controls(given: Any, names: Sequence[str]) -> dict[str, Any]:
    """Controls by the extractor whose run they go to; one without a name goes to the first.

    Raises UsageError for a name that no run has.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return {names[0]: given}
    for name in given:
        if name not in names:
            hint = did_you_mean(name, names) or "name a run that was trained on them: control_runs=[RUN]"
            raise UsageError(f"no run follows {name!r} controls; there are {', '.join(names)}", fix=hint)
    return {name: given[name] for name in names if name in given}


def described(strengths: Tensor, names: Sequence[str], guidance: str = "") -> str:
    """The strengths in words, such as "canny 0.5, sketch 0 0 1", and how they guide."""
    rows = [row.tolist() for row in strengths]
    texts = [[f"{s:g}" for s in (row[:1] if len(set(row)) == 1 else row)] for row in rows]
    each = ", ".join(f"{name} {' '.join(text)}" for name, text in zip(names, texts, strict=True))
    return f"{each} ({guidance})" if guidance else each


def _over_scales(strength: Any, num_scales: int) -> list[float]:
    if isinstance(strength, str):
        return [_checked(value) for value in _named(strength, num_scales)]
    if not isinstance(strength, (list, tuple)):
        return [_checked(strength)] * num_scales
    if len(strength) != num_scales:
        raise UsageError(
            f"control_scale has a schedule of {len(strength)} strengths, and there are {num_scales} scales",
            fix="give one for each scale",
        )
    return [_checked(value) for value in strength]


def _named(text: str, num_scales: int) -> list[float]:
    kind, *numbers = text.split(":")
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        values = []
    if kind in ("early", "late") and len(values) == 1 and values[0] in range(num_scales + 1):
        return [float((scale < values[0]) == (kind == "early")) for scale in range(num_scales)]
    if kind == "linear" and len(values) == 2:
        start, end = values
        return [start + (end - start) * scale / max(num_scales - 1, 1) for scale in range(num_scales)]
    raise UsageError(f"there is no schedule {text!r} over {num_scales} scales", fix=NAMED)


def _checked(value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or abs(value) > LARGEST:
        raise UsageError(
            f"control_scale has {value!r} as a strength",
            fix=f"use a number from -{LARGEST:g} to {LARGEST:g}; 0 is without control, 1 as trained",
        )
    return float(value)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

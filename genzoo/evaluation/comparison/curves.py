"""Curves of a run's own log: losses and metrics against steps, samples seen and seconds of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genzoo.core.errors import UsageError
from genzoo.core.run_folder import read_metrics

AXES = ("step", "samples", "seconds")


@dataclass(frozen=True)
class Point:
    """A value, and when: optimizer step, samples seen, seconds of training so far by the logged rate."""

    step: float
    samples: float
    seconds: float
    value: float

    def at(self, axis: str) -> float:
        """Its place on one of AXES."""
        return float(getattr(self, axis))


@dataclass(frozen=True)
class Curve:
    """One quantity of one run, such as "loss", "held_out/loss" or "evaluation/lite0_kid"."""

    run: str
    name: str
    points: Sequence[Point]


def read_curves(run: str, metrics: Path) -> list[Curve]:
    """Every curve of a metrics.jsonl; lines without samples have those of the line before.

    Values that are no finite numbers are left out.
    """
    samples = seconds = 0.0
    found: dict[str, list[Point]] = {}
    for record in read_metrics(metrics) if metrics.is_file() else []:
        step, seen = _number(record.get("step")), _number(record.get("samples"))
        if step is None:
            continue
        rate = _number(record.get("samples_per_second"))
        if seen is not None:
            seconds += (seen - samples) / rate if rate else 0.0
            samples = seen
        for name, value in record.items():
            usable = _number(value)
            if usable is not None and name not in ("step", "samples"):
                found.setdefault(name, []).append(Point(step, samples, seconds, usable))
    return [Curve(run, name, points) for name, points in found.items()]


def _number(value: object) -> float | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None  # type: ignore[arg-type]


@dataclass(frozen=True)
class Reached:
    """When a value was reached, in epochs.

    epochs: of the first evaluation at or beyond it that the next one confirms; None when it never was.
    between: interpolated in the logarithm of samples, an estimate.   until: how far the run was followed.
    """

    epochs: float | None
    between: float | None
    until: float

    def __str__(self) -> str:
        if self.epochs is None:
            return f"> {self.until:.4g}"
        about = "" if self.between is None else f" (about {self.between:.4g} between evaluations)"
        return f"{self.epochs:.4g}{about}"


def epochs_to_reach(
    curve: Sequence[Point], value: float, *, per_epoch: int, higher_is_better: bool = False
) -> Reached:
    """EP@k: the first evaluation at or beyond `value` that the next confirms, in samples over `per_epoch`.

    A last evaluation with none after it is not confirmed. Our definition: none was published.
    """
    if per_epoch < 1 or not curve:
        raise UsageError("epochs to a value need evaluations, and the size of the training set")
    sign = 1 if higher_is_better else -1
    good = [sign * point.value >= sign * value for point in curve]
    until = curve[-1].samples / per_epoch
    first = next((i for i in range(len(curve) - 1) if good[i] and good[i + 1]), None)
    if first is None:
        return Reached(None, None, until)
    between = None
    if first and curve[first - 1].samples > 0:
        between = _crossing(curve[first - 1], curve[first], value) / per_epoch
    return Reached(curve[first].samples / per_epoch, between, until)


def _crossing(before: Point, after: Point, value: float) -> float:
    share = (value - before.value) / (after.value - before.value) if after.value != before.value else 1.0
    logs = [math.log(point.samples) for point in (before, after)]
    return math.exp(logs[0] + share * (logs[1] - logs[0]))


def grouped(curves: Sequence[Curve]) -> Mapping[str, list[Curve]]:
    """Curves of one name together."""
    found: dict[str, list[Curve]] = {}
    for curve in curves:
        found.setdefault(curve.name, []).append(curve)
    return found

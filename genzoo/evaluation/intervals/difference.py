"""Are two results different? The interval of their difference decides, not whether two intervals overlap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

from genzoo.evaluation.intervals.estimate import LEVEL, Estimate, z_of


@dataclass(frozen=True)
class Difference:
    """value: the second less the first, from low to high.   p_value: two-sided, of no difference at all.

    paired: whether sample i of both was made from the same seed, which takes the common noise out.
    """

    value: float
    standard_error: float
    low: float
    high: float
    p_value: float
    paired: bool

    @property
    def differs(self) -> bool:
        """Whether 0 lies outside the interval."""
        return not self.low <= 0 <= self.high


def difference(first: Estimate, second: Estimate, *, paired: bool, level: float = LEVEL) -> Difference | None:
    """Of two values of one measure at one n; None when one of them has no standard error.

    paired: use the terms of both, where there are such. Samples vary, training runs do too: the interval is
    over samples only.
    """
    a, b = first.terms, second.terms
    if paired and a is not None and b is not None and len(a) == len(b) and len(a) > 1:
        apart = b.double() - a.double()
        error = float(apart.std(correction=1)) / len(apart) ** 0.5
    elif first.standard_error is None or second.standard_error is None:
        return None
    else:
        error, paired = math.hypot(first.standard_error, second.standard_error), False
    value, reach = second.value - first.value, z_of(level) * error
    p_value = 2 * (1 - NormalDist().cdf(abs(value) / error)) if error else float(value == 0)
    return Difference(value, error, value - reach, value + reach, p_value, paired)


def holm(p_values: Mapping[str, float], level: float = LEVEL) -> dict[str, bool]:
    """Which of several comparisons differ when all are looked at together (Holm 1979)."""
    decided, still = {}, True
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        still = still and p <= (1 - level) / (len(p_values) - rank)
        decided[name] = still
    return {name: decided[name] for name in p_values}

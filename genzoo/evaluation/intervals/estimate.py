"""A number with its interval, how that was found, and what is needed to set it beside another."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

LEVEL, HALVES, SEED = 0.95, 50, 0
TARGET = "the expectation over samples at this number of them, reference fixed"


@dataclass(frozen=True)
class Uncertainty:
    """How intervals are made.   level: of confidence.   halves: how many half-samples.   seed: of those.

    infinity: also give Fréchet distances at infinitely many samples, by "jackknife" or the published "line".
    """

    level: float = LEVEL
    halves: int = HALVES
    seed: int = SEED
    infinity: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.level < 1 or self.halves < 2:
            raise UsageError(f"an interval needs a level in (0, 1) and 2 halves, got {self}")
        if self.infinity not in (None, "jackknife", "line"):
            raise UsageError(f"infinity is 'jackknife' or 'line', not {self.infinity!r}")


@dataclass(frozen=True)
class Estimate:
    """value, and low to high, its interval; None where there is no honest one, and `method` then says why.

    terms: (n,) what each sample adds to first order, the same unit as the value; two results on the same
    seeds are compared by the difference of these.   target: what the interval is for.
    """

    value: float
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = ""
    level: float = LEVEL
    seed: int | None = None
    target: str = TARGET
    terms: Tensor | None = field(default=None, compare=False, repr=False)

    def describe(self) -> dict[str, Any]:
        """What a result states beside the value."""
        names = ("low", "high", "standard_error", "level", "method", "seed", "target")
        return {name: getattr(self, name) for name in names}


def bare(value: float, method: str = "") -> Estimate:
    """A number without an interval, and why."""
    return Estimate(value, method=method)


def normal(value: float, standard_error: float, method: str, level: float, **more: Any) -> Estimate:
    """value -+ z standard errors."""
    reach = z_of(level) * standard_error
    return Estimate(value, standard_error, value - reach, value + reach, method, level, **more)


def of_mean(value: float, terms: Tensor, method: str, level: float) -> Estimate:
    """Of a number that is, to first order, a constant and the mean of one term for each sample."""
    spread = float(terms.double().std(correction=1)) if len(terms) > 1 else math.nan
    return normal(value, spread / len(terms) ** 0.5, method, level, terms=terms)


def wilson(count: int, total: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a share count/total of independent samples (Wilson 1927); inside [0, 1]."""
    z, share = z_of(level), count / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    reach = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    low = 0.0 if count == 0 else middle - reach
    return low, 1.0 if count == total else middle + reach


def of_share(indicators: Tensor, level: float, *, percent: float = 1.0) -> Estimate:
    """Of the share of samples that have a property; indicators: (n,) bool.   percent: 100 for per cent."""
    count, total = int(indicators.sum()), len(indicators)
    low, high = wilson(count, total, level)
    share = count / total
    return Estimate(
        percent * share,
        percent * math.sqrt(share * (1 - share) / total),
        percent * low,
        percent * high,
        "Wilson",
        level,
        terms=percent * indicators.double(),
    )


def z_of(level: float) -> float:
    """How many standard errors hold `level` of a normal distribution: 1.96 of 95 %."""
    return NormalDist().inv_cdf((1 + level) / 2)


def t_of(level: float, freedom: int) -> float:
    """The same of Student's t, by its expansion in 1/freedom: 1e-5 from 10 degrees on (Hill 1970)."""
    z = z_of(level)
    corrections = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(corrections, start=1))

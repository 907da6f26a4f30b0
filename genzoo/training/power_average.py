"""Averages over a share of the training so far, and any of them after training (Karras et al.
2024, "EDM2", section 3).

The profile of length sigma at time t weighs the weights of time tau by p(tau) = (g + 1) tau^g / t^(g + 1);
its standard deviation is sigma t. Averages of two or three lengths, stored now and then, span those of
others: the combination nearest by least squares is what `coefficients` gives; `profile_gap` says how near.
Time is counted in optimizer steps; arithmetic is float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from genzoo.core.errors import UsageError
from genzoo.training.config import LONGEST


class Profile(NamedTuple):
    """An average taken at `time` with exponent `gamma`."""

    time: float
    gamma: float


def gamma_of(sigma: float) -> float:
    """The exponent of a profile of relative length sigma. Raises UsageError outside (0, 0.289)."""
    if not 0 < sigma < LONGEST:
        raise UsageError(
            f"an average of relative length {sigma:g} does not exist",
            why=f"lengths lie between 0 and {LONGEST:.3f} of the training so far",
            fix="use one such as 0.05 or 0.1",
        )
    inverse = sigma**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    return float(roots[np.abs(roots.imag) < 1e-6 * np.abs(roots)].real.max())


def sigma_of(gamma: float) -> float:
    """The relative length of a profile."""
    return math.sqrt(gamma + 1) / ((gamma + 2) * math.sqrt(gamma + 3))


def decay_at(step: int, gamma: float) -> float:
    """How much of the average stays at step 1, 2, ...; none at the first."""
    return float((1 - 1 / step) ** (gamma + 1))


def inner(a: Profile, b: Profile) -> float:
    """The integral of the product of two profiles."""
    exponent = b.gamma if a.time < b.time else -a.gamma
    scale = (a.gamma + 1) * (b.gamma + 1) * (a.time / b.time) ** exponent
    return float(scale / ((a.gamma + b.gamma + 1) * max(a.time, b.time)))


def correlations(stored: Sequence[Profile]) -> np.ndarray:
    """Inner products of every two, (n, n)."""
    return np.array([[inner(a, b) for b in stored] for a in stored])


def coefficients(stored: Sequence[Profile], wanted: Profile, *, normalised: bool = True) -> np.ndarray:
    """The weights of stored averages whose sum is nearest to the wanted one, (n,).

    normalised: divided by their sum, which is not exactly one, so that constant weights stay as they are.
    """
    target = np.array([inner(a, wanted) for a in stored])
    found = np.linalg.solve(correlations(stored), target)
    return found / found.sum() if normalised else found


def profile_gap(stored: Sequence[Profile], weights: np.ndarray, wanted: Profile) -> float:
    """How far the combined profile is from the wanted one, relative to its size (root of the mean square)."""
    target = np.array([inner(a, wanted) for a in stored])
    size = inner(wanted, wanted)
    square = weights @ correlations(stored) @ weights - 2 * weights @ target + size
    return math.sqrt(max(float(square), 0.0) / size)

"""Averaged weights of any length, put together after training from those that the run stored."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.tensor_files import open_tensors
from genzoo.training.power_average import Profile, coefficients, gamma_of, profile_gap
from genzoo.training.profiles import FOLDER, SLOT

WORST = 0.1  # of a profile, relative: a combination farther off is another average
logger = logging.getLogger(__name__)


class Stored(NamedTuple):
    """One stored average: in which file, of which step, of which relative length (as it is written)."""

    file: Path
    step: int
    length: str


class Combination(NamedTuple):
    """Weights of stored averages.   step: that they stand for.   gap: of their profile, see `profile_gap`."""

    stored: list[Stored]
    weights: np.ndarray
    step: int
    gap: float


def combination(run: Path, length: float, step: int) -> Combination:
    """How to come near the average of a relative length at the last stored step up to `step`.

    Raises UsageError for a length that does not exist or is too far from those stored, WeightsError for a run
    that stored none.
    """
    gamma = gamma_of(length)
    stored = [one for one in stored_averages(run) if one.step <= step]
    steps = {one.step for one in stored}
    if len(steps) < 2:
        raise WeightsError(
            f"the run stored averages to combine at {len(steps)} step(s), which are too few",
            where=str(run),
            fix="train with train.ema_profiles=[0.04,0.08,0.16]; they cannot be had afterwards",
        )
    profiles = [Profile(one.step, gamma_of(float(one.length))) for one in stored]
    wanted = Profile(max(steps), gamma)
    weights = coefficients(profiles, wanted)
    gap = profile_gap(profiles, weights, wanted)
    if gap > WORST:
        lengths = ", ".join(sorted({one.length for one in stored}))
        raise UsageError(
            f"an average of length {length:g} cannot be put together: its profile would be off by {gap:.0%}",
            why=f"stored are lengths {lengths} at {len(steps)} steps",
            fix="ask for one nearer to these, or train with more snapshots (train.ema_snapshot_every)",
        )
    return Combination(stored, weights, max(steps), gap)


def combined(chosen: Combination) -> dict[str, Tensor]:
    """The averaged parameters by name, in the precision they were stored in; summed in float64."""
    total: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for one, weight in zip(chosen.stored, chosen.weights.tolist(), strict=True):
        with open_tensors(one.file, "a stored average") as file:
            for key in file.keys():  # noqa: SIM118  (a file of tensors is no mapping)
                name, _, slot = key.rpartition("/")
                if slot == f"{SLOT}{one.length}":
                    tensor = file.get_tensor(key)
                    kinds[name] = tensor.dtype
                    part = weight * tensor.double()
                    total[name] = part if name not in total else total[name].add_(part)
    return {name: tensor.to(kinds[name]) for name, tensor in total.items()}


def reaveraged(run: Path, length: float, step: int) -> dict[str, Tensor]:
    """The weights of `combination`, which is logged with its gap."""
    chosen = combination(run, length, step)
    logger.info(
        "average of length %g at step %d from %d stored ones; its profile is off by %.2g",
        length,
        chosen.step,
        len(chosen.stored),
        chosen.gap,
    )
    return combined(chosen)


def stored_averages(run: Path) -> Sequence[Stored]:
    """All that a run stored, by step and length."""
    found = []
    for file in sorted((run / FOLDER).glob("step_*.safetensors")):
        with open_tensors(file, "a stored average") as opened:
            slots = {key.rpartition("/")[2] for key in opened.keys()}  # noqa: SIM118
        step = int(file.stem.removeprefix("step_"))
        found += [Stored(file, step, slot.removeprefix(SLOT)) for slot in sorted(slots)]
    return found

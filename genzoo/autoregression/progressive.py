"""Training that begins with the coarse scales and adds the finer ones one by one.

The schedule of VAR's trainer (options pg, pg0 and pgwp), which its authors mark as untested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genzoo.core.errors import UsageError
from genzoo.core.signatures import check_settings, parameters

KEY = "task.progressive"
SMALLEST_WEIGHT = 0.01


@dataclass(frozen=True, kw_only=True)
class Stage:
    """num_scales: that are trained.   last_weight: of the newest one's tokens in the loss."""

    num_scales: int
    last_weight: float


@dataclass(frozen=True, kw_only=True)
class Progressive:
    """Scales by step: `first_scales` during the warm-up, then one more after another until all are there.

    until: share of all steps after which every scale is trained.   warmup_steps: those with the first scales
    only.   ramp_steps: over which the loss of a scale that was added grows from 0.01 of its weight to all of
    it; the first scales and the finest have theirs at once, as released.
    """

    until: float
    first_scales: int = 5
    warmup_steps: int = 0
    ramp_steps: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1:
            raise UsageError(f"task.progressive.until is a share of the steps, not {self.until}")
        if self.first_scales < 2 or self.warmup_steps < 0 or self.ramp_steps < 1:
            raise UsageError(
                "task.progressive begins with 2 scales or more, and counts steps",
                why=f"first_scales {self.first_scales}, warmup_steps {self.warmup_steps}, "
                f"ramp_steps {self.ramp_steps}",
            )

    def num_scales(self, step: int, total_steps: int, num_scales: int) -> int:
        """How many of `num_scales` scales step 0, 1, ... of `total_steps` trains."""
        last = total_steps * self.until
        if step >= last:
            return num_scales
        if step <= self.warmup_steps:
            return min(self.first_scales, num_scales)
        share = (step - self.warmup_steps) / (last - self.warmup_steps)
        return self.first_scales + round(share * (num_scales - self.first_scales))

    def stage(self, step: int, total_steps: int, num_scales: int) -> Stage:
        """What a step trains. A function of the step alone, so that a resumed run goes on with it."""
        count = self.num_scales(step, total_steps, num_scales)
        if count in (min(self.first_scales, num_scales), num_scales):
            return Stage(num_scales=count, last_weight=1.0)
        seen = step - self._first_step(count, step, total_steps, num_scales) + 1
        return Stage(num_scales=count, last_weight=min(max(seen / self.ramp_steps, SMALLEST_WEIGHT), 1.0))

    def _first_step(self, count: int, step: int, total_steps: int, num_scales: int) -> int:
        """The first step that trains so many scales, by halving: their number never falls."""
        low, high = 0, step
        while low < high:
            middle = (low + high) // 2
            if self.num_scales(middle, total_steps, num_scales) < count:
                low = middle + 1
            else:
                high = middle
        return low


def build_progressive(section: Mapping[str, Any] | None, num_scales: int) -> Progressive | None:
    """The schedule of a recipe's section; None without one. Raises UsageError for what does not fit."""
    if section is None:
        return None
    problems = check_settings(section, parameters(Progressive), key=KEY, owner="progressive training")
    if problems:
        raise UsageError("; ".join(map(str, problems)))
    schedule = Progressive(**section)
    if schedule.first_scales >= num_scales:
        raise UsageError(
            f"task.progressive begins with {schedule.first_scales} scales, and the model has {num_scales}",
            fix="set task.progressive.first_scales to fewer",
        )
    return schedule

"""A run's recipe once more, and whether the same came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genzoo.api.run import Run, train
from genzoo.api.runs.located import located
from genzoo.api.runs.run_data import RunData
from genzoo.api.training.train import train_recipe
from genzoo.core.errors import DataError
from genzoo.core.paths import beside
from genzoo.core.recipe import with_overrides
from genzoo.core.recipe_history import Phase, phases_of
from genzoo.core.run_folder import read_metrics


@dataclass(frozen=True)
class LossComparison:
    """steps: logged in both runs.   largest: difference of two losses of one step.   at: that step."""

    steps: int
    largest: float
    at: int

    def __str__(self) -> str:
        if self.largest == 0:
            return f"losses are equal at all {self.steps} steps that both runs logged"
        return f"losses differ by at most {self.largest:.3g} (step {self.at}) over {self.steps} common steps"


def rerun_recipe(
    run: RunData, *, output: str | Path | None = None, steps: int | None = None, changes: Sequence[str] = ()
) -> Run:
    """Train a run once more from its first step, in a new folder, with every change of its recipe on the way.

    steps: stop after so many.   changes: "key=value" that hold from the first step on, such as
    data.root=ELSEWHERE. Raises UsageError when the folder holds a run.
    """
    folder = Path(output) if output is not None else beside(run.folder, "-rerun")
    phases = phases_of(run.folder, run.step) or [Phase(0, run.recipe)]
    ends = [*(phase.after for phase in phases[1:]), steps]
    resume = "never"
    for phase, end in zip(phases, ends, strict=True):
        recipe = located(with_overrides(phase.recipe, changes), run.folder)
        if phase is phases[-1] or (steps is not None and end is not None and steps <= end):
            return train(recipe, output=folder, resume=resume, until=steps)
        train_recipe(recipe, output=folder, resume=resume, until=end)
        resume = "auto"
    raise AssertionError("the last phase ends the loop")


def compare_losses(first: RunData, second: RunData) -> LossComparison:
    """Compare the losses of the steps that both runs logged. Raises DataError when there are none."""
    # evaluations add lines of their own, without a loss
    losses = [{int(r["step"]): r["loss"] for r in _metrics(run) if "loss" in r} for run in (first, second)]
    common = sorted(losses[0].keys() & losses[1].keys())
    if not common:
        raise DataError(f"{first.folder} and {second.folder} have no logged step in common")
    gaps = {step: abs(losses[0][step] - losses[1][step]) for step in common}
    at = max(gaps, key=lambda step: gaps[step])
    return LossComparison(len(common), gaps[at], at)


def _metrics(run: RunData) -> list[dict[str, float]]:
    path = run.folder / "metrics.jsonl"
    if not path.is_file():
        raise DataError(f"{run.folder} has no metrics.jsonl to compare")
    return read_metrics(path)

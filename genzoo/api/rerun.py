"""A run's recipe once more, and whether the same came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genzoo.api.run import Run, train
from genzoo.api.runs.run_data import RunData
from genzoo.core.errors import DataError
from genzoo.core.recipe import load_recipe
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


def rerun_recipe(run: RunData, *, output: str | Path | None = None, steps: int | None = None) -> Run:
    """Train the recipe of a run from its first step in a new folder; `steps` stops it earlier."""
    folder = (
        Path(output) if output is not None else run.folder.with_name(f"{run.folder.resolve().name}-rerun")
    )
    overrides = [f"train.steps={steps}"] if steps is not None else []
    return train(load_recipe(run.folder / "recipe.yaml", overrides), output=folder, resume="never")


def compare_losses(first: RunData, second: RunData) -> LossComparison:
    """Compare the losses of the steps that both runs logged. Raises DataError when there are none."""
    losses = [{int(r["step"]): r["loss"] for r in _metrics(run)} for run in (first, second)]
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

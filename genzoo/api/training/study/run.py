"""Running a study: its cells as the trainings of a sweep, those that they stand on first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from genzoo.api.recipes.plan import check_recipe
from genzoo.api.training.study.definition import Cell, Study
from genzoo.api.training.sweep import Planned, run_sweep
from genzoo.api.training.sweep_grid import SEED, Trial
from genzoo.core.recipe import load_recipe

BASE = "{base}"


@dataclass(frozen=True)
class PlannedCell:
    """A cell with its runs, one for each seed, and the run below them if there is one."""

    cell: Cell
    runs: tuple[Planned, ...]
    base: Planned | None = None

    @property
    def every(self) -> list[Planned]:
        """All trainings of the cell, in their order."""
        return [*([self.base] if self.base else []), *self.runs]


def plan_study(study: Study, folder: Path, overrides: Sequence[str] = ()) -> list[PlannedCell]:
    """Every training of a study, its recipe read and checked. Raises what that raises, before anything runs.

    overrides: settings on top of those of the study, in every cell; train.seed=0 replaces its seeds.
    """
    seeds = [str(seed) for seed in study.seeds]
    for text in overrides:
        if text.partition("=")[0] == SEED:
            seeds = text.partition("=")[2].split(",")
    others = [text for text in overrides if text.partition("=")[0] != SEED]
    return [_planned(study, cell, folder, seeds, others) for cell in study.cells]


def _planned(
    study: Study, cell: Cell, folder: Path, seeds: Sequence[str], others: Sequence[str]
) -> PlannedCell:
    below = folder / f"{cell.name}_base"
    base = None
    if cell.base is not None:
        base = _one(cell.base.recipe, Trial((), cell.base.settings, f"{cell.name} base"), below)
    settings = tuple(text.replace(BASE, str(below)) for text in cell.settings)
    fixed = _last_of_each([*study.settings, *settings, *others])
    trials = [Trial(((SEED, seed),), fixed, cell.name) for seed in seeds]
    runs = [_one(study.recipe, trial, folder / f"{cell.name}_{trial.folder}") for trial in trials]
    return PlannedCell(cell, tuple(runs), base)


def _one(recipe: str, trial: Trial, folder: Path) -> Planned:
    planned = Planned(trial, load_recipe(recipe, trial.overrides), folder)
    check_recipe(planned.recipe)
    return planned


def _last_of_each(overrides: Sequence[str]) -> tuple[str, ...]:
    """A setting that is given twice counts as it was given last."""
    found = {text.partition("=")[0]: text for text in overrides}
    return tuple(found.values())


def chosen(planned: Sequence[PlannedCell], study: Study, names: Sequence[str]) -> list[PlannedCell]:
    """The cells of those names, in the order of the names; all when none is named."""
    by_name = {one.cell.name: one for one in planned}
    return [by_name[study.cell(name).name] for name in names] if names else list(planned)


def run_study(
    study: Study,
    planned: Sequence[PlannedCell],
    *,
    jobs: int = 1,
    words: Sequence[str] = (),
    told: Callable[[Planned, int], None] = lambda one, code: None,
) -> dict[str, int]:
    """Train what is not finished and return exit codes by the names of folders, as `run_sweep` does.

    Runs that cells stand on come first, and a cell whose own failed is not tried; then every cell with the
    first seed, with the second, and so on, so that a study that is stopped has compared all of them.
    """
    codes: dict[str, int] = {}
    for one in planned:
        if one.cell.base is not None and one.base is not None:
            codes |= run_sweep(one.cell.base.recipe, [one.base], words=words, told=told)
    standing = [one for one in planned if one.base is None or codes[one.base.folder.name] == 0]
    runs = [run for alike in zip(*(one.runs for one in standing), strict=True) for run in alike]
    return codes | run_sweep(study.recipe, runs, jobs=jobs, words=words, told=told)

"""`genzoo sweep STUDY.yaml`: the cells of a study, and the paper beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from genzoo.api.commands.terminal import print_json
from genzoo.api.training.study.definition import read_study
from genzoo.api.training.study.files import claim_study, write_results
from genzoo.api.training.study.results import as_json, as_markdown, results_of
from genzoo.api.training.study.run import chosen, plan_study, run_study
from genzoo.api.training.sweep import Planned
from genzoo.core.plugins import loaded_modules


def study_command(
    path: str,
    overrides: Sequence[str],
    *,
    output: str | None,
    results: str | None,
    cells: str | None,
    jobs: int,
    list_only: bool,
    told_only: bool,
    as_data: bool,
    told: Callable[[Planned, int], None],
) -> None:
    """Plan, run what is not finished, and write NAME.json, NAME.md and NAME.svg after every training."""
    study = read_study(path)
    folder = Path(output or f"runs/study_{study.name}")
    planned = plan_study(study, folder, overrides)
    wanted = chosen(planned, study, cells.split(",") if cells else [])
    if list_only:
        runs = [run for one in wanted for run in one.every]
        typer.echo("\n".join(f"{run.folder}: {' '.join(run.trial.overrides)}" for run in runs))
        return
    place = Path(results) if results else folder
    claim_study(study, planned, folder, place)
    kept = place / f"{study.name}.json"

    def written(one: Planned, code: int) -> None:
        told(one, code)
        write_results(place, study, results_of(study, planned, kept))

    words = [word for name in loaded_modules() for word in ("--import", name)]
    codes = {} if told_only else run_study(study, wanted, jobs=jobs, words=words, told=written)
    found = results_of(study, planned, kept)
    write_results(place, study, found)
    print_json(as_json(study, found)) if as_data else typer.echo(as_markdown(study, found))
    worst = max(codes.values(), key=abs, default=0)
    if worst:
        raise typer.Exit(abs(worst))

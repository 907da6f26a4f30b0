"""`genzoo sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genzoo.api.commands.arguments import AsJson
from genzoo.api.commands.terminal import load_torch, print_json
from genzoo.api.training.study.definition import is_study
from genzoo.core.errors import UsageError
from genzoo.core.plugins import loaded_modules
from genzoo.core.recipe import load_recipe

if TYPE_CHECKING:
    from genzoo.api.training.sweep import Planned


def sweep_command(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE|STUDY", help="path of a recipe or study, or a shipped recipe"),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE[,VALUE]...", help="settings; those with several values are varied"),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="folder of the runs; runs/sweep_NAME when left out")
    ] = None,
    results: Annotated[
        str | None, typer.Option(help="folder of a study's results; with its runs when left out")
    ] = None,
    cells: Annotated[str | None, typer.Option(help="run these cells of a study only: A,B")] = None,
    tell: Annotated[bool, typer.Option("--tell", help="train nothing, say what a study came to")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="how many trainings at a time")] = 1,
    list_only: Annotated[bool, typer.Option("--list", help="only say what would be trained")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe under every combination of settings, and compare: median and range over train.seed.

    The same command again continues. Each is an ordinary run in a folder of its own, with its words in
    sweep.log; the numbers are in sweep.json. A study is a file with cells: what its recipe is changed to,
    what is measured, and what a paper says; it leaves NAME.json, NAME.md and NAME.svg.
    """

    def told(one: Planned, code: int) -> None:
        typer.echo(
            f"{one.folder}: {'done' if code == 0 else f'exit code {code}, see sweep.log there'}", err=True
        )

    if is_study(recipe):
        load_torch()
        from genzoo.api.commands.study import study_command

        study_command(
            recipe, settings or [], output=output, results=results, cells=cells, jobs=jobs,
            list_only=list_only, told_only=tell, as_data=as_json, told=told,
        )  # fmt: skip
        return
    for name, given in (("--results", results), ("--cells", cells), ("--tell", tell)):
        if given:
            raise UsageError(f"{name} belongs to studies, and {recipe} is a recipe")
    load_recipe(recipe)  # first: a misspelt name is answered at once
    load_torch()
    from genzoo.api.training.sweep import plan_sweep, run_sweep
    from genzoo.api.training.sweep_table import claim_sweep, outcomes, table, write_sweep

    folder = Path(output or f"runs/sweep_{Path(recipe).stem}")
    planned = plan_sweep(recipe, settings or [], folder)
    if list_only:
        typer.echo("\n".join(f"{one.folder}: {' '.join(one.trial.overrides)}" for one in planned))
        return
    claim_sweep(folder, planned)

    words = [word for name in loaded_modules() for word in ("--import", name)]
    codes = run_sweep(recipe, planned, jobs=jobs, words=words, told=told)
    content = write_sweep(folder, recipe, planned, codes)
    print_json(content) if as_json else typer.echo("\n".join(table(outcomes(planned, codes))))
    worst = max(codes.values(), key=abs)
    if worst:
        raise typer.Exit(abs(worst))

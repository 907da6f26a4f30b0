"""The `train` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from genzoo.api.commands.arguments import AsJson, Overrides, RecipeArgument
from genzoo.api.commands.terminal import load_torch, print_json
from genzoo.core.processes import World
from genzoo.core.progress import Progress

if TYPE_CHECKING:
    from genzoo.core.recipe import Recipe


def train_command(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="the run's folder; runs/NAME when left out")
    ] = None,
    resume: Annotated[str, typer.Option(metavar="auto|never|PATH", help="where to continue")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="one batch: classes, files, memory, disk, time; then stop")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe; the same command again continues an interrupted run."""
    from genzoo.core.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])  # first: a misspelt name is answered at once
    load_torch()
    if dry_run:
        raise typer.Exit(0 if _dry_run(loaded, output, as_json) else 4)
    from genzoo.api.run import train as train_run
    from genzoo.api.runs.run_report import read_report, report_lines

    run = train_run(loaded, output=output, resume=resume)
    if World.current().is_first:
        report = read_report(run)
        if as_json:
            print_json({"run": str(run.folder), "step": run.step, "report": report.get("metrics", [])})
            return
        typer.echo("\n".join([*report_lines(report), f"run: {run.folder}"]))


def _dry_run(recipe: Recipe, output: str | None, as_json: bool) -> bool:
    """Whether enough of the files can be read to train; what the run would be like is printed."""
    from genzoo.api.training import train as training

    with Progress() as bars:
        found = training.dry_run(recipe, output=output, progress=bars.of("looking at files"))
    print_json(found.as_dict()) if as_json else typer.echo(str(found))
    return not found.too_many_unreadable

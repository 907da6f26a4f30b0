"""`genzoo sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genzoo.api.commands.terminal import load_torch, print_json
from genzoo.core.plugins import loaded_modules
from genzoo.core.recipe import load_recipe


def sweep_command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="path of a recipe, or the name of a shipped one")
    ],
    settings: Annotated[
        list[str],
        typer.Argument(metavar="KEY=VALUE[,VALUE]...", help="settings; those with several values are varied"),
    ],
    output: Annotated[
        str | None, typer.Option(help="folder of the runs; runs/sweep_NAME when left out")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="how many trainings at a time")] = 1,
    list_only: Annotated[bool, typer.Option("--list", help="only say what would be trained")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Train a recipe under every combination of settings, and compare: median and range over train.seed.

    The same command again continues. Each is an ordinary run in a folder of its own, with its words in
    sweep.log; the numbers are in sweep.json.
    """
    load_recipe(recipe)  # first: a misspelt name is answered at once
    load_torch()
    from genzoo.api.training.sweep import Planned, plan_sweep, run_sweep
    from genzoo.api.training.sweep_table import claim_sweep, outcomes, table, write_sweep

    folder = Path(output or f"runs/sweep_{Path(recipe).stem}")
    planned = plan_sweep(recipe, settings, folder)
    if list_only:
        typer.echo("\n".join(f"{one.folder}: {' '.join(one.trial.overrides)}" for one in planned))
        return
    claim_sweep(folder, planned)

    def told(one: Planned, code: int) -> None:
        typer.echo(
            f"{one.folder}: {'done' if code == 0 else f'exit code {code}, see sweep.log there'}", err=True
        )

    words = [word for name in loaded_modules() for word in ("--import", name)]
    codes = run_sweep(recipe, planned, jobs=jobs, words=words, told=told)
    content = write_sweep(folder, recipe, planned, codes)
    print_json(content) if as_json else typer.echo("\n".join(table(outcomes(planned, codes))))
    worst = max(codes.values(), key=abs)
    if worst:
        raise typer.Exit(abs(worst))

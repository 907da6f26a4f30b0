"""The `rerun` command: whether a run comes out again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from genzoo.api.commands.arguments import AsJson, Overrides, RunArgument, require_run
from genzoo.api.commands.terminal import load_torch, print_json


def rerun_command(
    run: RunArgument,
    overrides: Overrides = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="folder of the new run; RUN-rerun when left out")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="stop after so many steps")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="print how far the losses differ")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a run's own recipe again, with every change on the way, into a new folder."""
    require_run(run)
    load_torch()
    from genzoo.api.rerun import compare_losses, rerun_recipe
    from genzoo.api.run import load_run

    first = load_run(run)
    second = rerun_recipe(first, output=output, steps=steps, changes=overrides or [])
    compared = compare_losses(first, second) if compare else None
    if as_json:
        print_json({"run": str(second.folder), "losses": None if compared is None else asdict(compared)})
        return
    typer.echo(f"run: {second.folder}")
    if compared is not None:
        typer.echo(str(compared))

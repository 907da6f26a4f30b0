"""The `count` command: how large and how costly a model is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genzoo.api.commands import completion
from genzoo.api.commands.arguments import AsJson, settings_from
from genzoo.api.commands.terminal import load_torch, print_json
from genzoo.core.errors import UsageError


def count_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN",
            help="a name of `genzoo list models`, or a run, whose model is meant",
            autocompletion=completion.models,
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="model arguments")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="pixels; the model's own size when left out")
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="count as the model's paper did")] = False,
    as_json: AsJson = False,
) -> None:
    """Count parameters and multiply-adds of one forward pass."""
    from genzoo.api.recipes.listing import require_model
    from genzoo.api.recipes.named import recipe_of_run
    from genzoo.core.recipe_source import is_file

    is_run = not is_file(Path(model)) and recipe_of_run(model) is not None
    if is_run and overrides:
        raise UsageError(f"{model} is a run, whose model is as it is", fix=f"leave {overrides[0]} out")
    if not is_run and not is_file(Path(model)):
        require_model(model)
    load_torch()
    from genzoo.api.recipes.models import count as count_model
    from genzoo.api.run import load_run

    counted = load_run(model).task(device="cpu").model if is_run else model
    found = count_model(counted, image_size=image_size, paper=paper, **settings_from(overrides or []))
    found = {"model": model, **found}
    if as_json:
        print_json(found)
        return
    width = max(map(len, found))
    for key, value in found.items():
        typer.echo(f"{key:<{width}}  {f'{value:,.4f}' if isinstance(value, float) else value}")
    typer.echo(
        "params in millions, gflops in 10^9 multiply-adds" + (", as the paper counts" if paper else "")
    )

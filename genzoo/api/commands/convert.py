"""The `convert` command: weights of other projects made ours."""

from __future__ import annotations

from typing import Annotated

import typer

from genzoo.api.commands.arguments import AsJson, Overrides, settings_from
from genzoo.api.commands.terminal import load_torch, print_json


def convert_command(
    source: Annotated[str, typer.Argument(help="a weights file of another project")],
    output: Annotated[str, typer.Argument(help="folder for the new run")],
    overrides: Overrides = None,
    recipe: Annotated[
        str | None, typer.Option(help="supplies codec, sampler and task; has a default")
    ] = None,
    layout: Annotated[
        str | None, typer.Option("--from", help="whose file it is; recognised when left out")
    ] = None,
    argument: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="what the tensors cannot tell")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn released weights into a run that can be sampled."""
    from genzoo.core.errors import WeightsError
    from genzoo.core.paths import require_path
    from genzoo.core.recipe_source import find_recipe

    if recipe is not None:
        find_recipe(recipe)
    require_path(source, "a weights file", fix="check the path", error=WeightsError)
    load_torch()
    from genzoo.api.runs.conversion import convert as convert_weights

    options = {"recipe": recipe, "layout": layout, "arguments": settings_from(argument or [])}
    run, conversion = convert_weights(source, output, overrides=overrides or [], **options)  # type: ignore[arg-type]
    if as_json:
        entries = [{"tensor": entry, "ours": ours, "why": why} for entry, ours, why in conversion.report]
        print_json({"run": str(run.folder), "report": entries})
        return
    for entry, ours, why in conversion.report:
        typer.echo(f"{entry} -> {ours or '(not carried over)'}: {why}")
    typer.echo(f"run: {run.folder}")

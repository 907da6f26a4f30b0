"""The `show` command: a recipe, written out."""

from __future__ import annotations

from typing import Annotated

import typer

from genzoo.api.commands.arguments import AsJson, Overrides, RecipeOrRun
from genzoo.api.commands.terminal import print_json


def show_command(
    recipe: RecipeOrRun,
    overrides: Overrides = None,
    plain: Annotated[bool, typer.Option("--plain", help="without the origin of each value")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a recipe, or a run's, with every include expanded, and where each value comes from."""
    from genzoo.api.recipes.show import annotated, find

    found = find(recipe, overrides or [])
    if as_json:
        print_json({"recipe": found.data} | ({} if plain else {"origins": dict(found.origins)}))
        return
    typer.echo(found.to_yaml().rstrip() if plain else annotated(found))

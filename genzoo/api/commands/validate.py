"""The `validate` command: recipes held against the code they name."""

from __future__ import annotations

from typing import Annotated

import typer

from genzoo.api.commands import completion
from genzoo.api.commands.arguments import AsJson
from genzoo.api.commands.terminal import load_torch, print_json


def validate_command(
    recipes: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE|RUN... [KEY=VALUE]...", autocompletion=completion.recipes),
    ],
    as_json: AsJson = False,
) -> None:
    """Check recipes against the code they name; every problem is listed at once."""
    from genzoo.api.recipes.named import recipe_named

    overrides = [text for text in recipes if "=" in text]
    # read first: a misspelt name is answered before anything heavy is imported
    loaded = {text: recipe_named(text, overrides) for text in recipes if "=" not in text}
    load_torch()
    from genzoo.api.recipes.plan import check_recipe

    found = {name: check_recipe(recipe) for name, recipe in loaded.items()}
    if as_json:
        print_json({name: {"ok": True, "missing": missing} for name, missing in found.items()})
        return
    for name, missing in found.items():
        typer.echo(f"{name}: ok" + (f"; you have to give {', '.join(missing)}" if missing else ""))

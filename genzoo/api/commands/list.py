"""The `list` command: every name that can be typed or written into a recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from genzoo.api.commands import completion
from genzoo.api.commands.arguments import AsJson
from genzoo.api.commands.terminal import print_json


def list_command(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="models, recipes, samplers, losses, ...; all when left out",
            autocompletion=completion.kinds,
        ),
    ] = None,
    pattern: Annotated[str | None, typer.Argument(help='a shell pattern such as "*_b4"')] = None,
    as_json: AsJson = False,
) -> None:
    """List models, recipes and every registered name."""
    from genzoo.api.recipes.listing import KINDS, describe

    kinds = [kind] if kind else list(KINDS)
    found = {kind: describe(kind, pattern or "*") for kind in kinds}
    if as_json:
        print_json({kind: dict(entries) for kind, entries in found.items()})
        return
    for name, entries in found.items():
        if entries:
            typer.echo(f"{name}:" if len(found) > 1 else "", nl=len(found) > 1)
            width = max(len(entry) for entry, _ in entries)
            typer.echo("\n".join(f"  {entry:<{width}}  {text}".rstrip() for entry, text in entries))

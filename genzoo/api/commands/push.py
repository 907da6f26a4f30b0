"""The `push` command: a run or a concept to a hub, or into a folder to look at first."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from genzoo.api.commands import completion
from genzoo.api.commands.arguments import AsJson, require_run
from genzoo.api.commands.terminal import load_torch, print_json


def push_command(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CONCEPT", help="folder of a run, or a file", autocompletion=completion.runs
        ),
    ],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="user/name on the hub")],
    private: Annotated[
        bool, typer.Option("--private", help="a new repository that others do not see")
    ] = False,
    dry_run: Annotated[
        str | None,
        typer.Option("--dry-run", metavar="FOLDER", help="write what would be sent there, and ask nobody"),
    ] = None,
    licence: Annotated[
        str, typer.Option("--license", metavar="NAME", help="of the weights, such as apache-2.0")
    ] = "unknown",
    weights: Annotated[
        str | None, typer.Option(metavar="ema|raw", help="averaged where there are, when left out")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="store 16-bit numbers")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a run or a concept on the Hugging Face hub: weights, recipe, samples, and a page on what it is."""
    require_run(run)
    from genzoo.api.publishing.licences import require_licence
    from genzoo.pretrained.hub_runs import repository_of

    repository_of(repository)
    require_licence(licence)
    load_torch()
    from genzoo.api.publishing.push import push, write_repository
    from genzoo.api.run import load_run

    options: Any = {"licence": licence, "weights": weights, "half": half}
    opened = load_run(run)
    if dry_run is None:
        made = push(opened, repository, private=private, **options)
    else:
        made = write_repository(opened, dry_run, repository, **options)
    if as_json:
        print_json({"where": made.where, "files": made.files})
        return
    typer.echo("\n".join(f"{size:>14,}  {name}" for name, size in made.files.items()))
    typer.echo(f"{'written' if dry_run else 'pushed'}: {made.where}")

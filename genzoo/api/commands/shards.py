"""`genzoo prepare shards`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from genzoo.api.commands.arguments import AsJson
from genzoo.api.commands.terminal import load_torch, print_json
from genzoo.core.errors import DataError
from genzoo.core.paths import require_path
from genzoo.core.processes import connected
from genzoo.core.progress import Progress
from genzoo.core.wording import counted


def prepare_shards_command(
    folder: Annotated[
        str,
        typer.Argument(metavar="FOLDER", help="with the .tar files; or a URL, such as s3://bucket/folder"),
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="folder for the indices; beside the shards otherwise")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Note where each sample of tar shards is, so that data set image_shards reads them in any order."""
    if "://" not in folder:
        require_path(folder, "a folder of shards", fix="check the path", error=DataError)
    load_torch()
    from genzoo.api.preparation.shards import prepare_shards

    with connected() as world, Progress() as progress:
        report = prepare_shards(
            folder,
            None if output is None else Path(output).expanduser(),
            progress=progress.of("indexing"),
            world=world,
        )
    if not world.is_first:
        return
    for name in report.ignored[:5]:
        typer.echo(f"left out: {name}", err=True)
    if as_json:
        print_json(asdict(report))
        return
    typer.echo(
        f"{counted(report.shards, 'shard')}, {counted(report.samples, 'sample')}: {report.made} indexed, "
        f"{report.shards - report.made} were"
    )

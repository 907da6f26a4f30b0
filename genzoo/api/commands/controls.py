"""`genzoo prepare controls`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from genzoo.api.commands.terminal import (
    AsJson,
    AtOnce,
    Device,
    Prune,
    Workers,
    load_torch,
    print_json,
    settings_from,
)
from genzoo.core.errors import UsageError
from genzoo.core.processes import connected
from genzoo.core.progress import Progress
from genzoo.core.recipe_source import is_file


def prepare_controls_command(
    source: Annotated[str, typer.Argument(metavar="RECIPE|RUN|FOLDER|PICTURE", help="whose pictures")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="of the recipe; for a folder, the extractor's settings"
        ),
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="extractor for a folder: see `genzoo list controls`")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="folder for the PNG files")] = None,
    batch_size: AtOnce = 32,
    num_workers: Workers = 0,
    device: Device = None,
    prune: Prune = False,
    as_json: AsJson = False,
) -> None:
    """Extract the controls of a recipe's pictures into data.controls, or of a folder as PNG files; once."""
    from genzoo.api.recipes.named import recipe_named

    is_folder = _is_folder(source)
    # read first: a misspelt name is answered before anything heavy is imported
    recipe = None if is_folder or control or output else recipe_named(source, overrides or [])
    load_torch()
    from genzoo.api.preparation.controls import extract_folder, prepare_controls

    with connected() as world, Progress() as bars:
        progress = bars.of("extracting")
        if is_folder:
            if control is None or output is None:
                raise UsageError(
                    f"{source} is no recipe, so it is not clear what to extract",
                    fix="name the extractor and a folder: --control canny --output edges",
                )
            section = {"name": control} | settings_from(overrides or [])
            report, sheet = extract_folder(
                source, output, section, device=device, progress=progress, world=world
            )
        else:
            if recipe is None:
                raise UsageError(
                    f"{source!r} is no folder or picture that is here",
                    why="and a recipe says itself what to extract, and where to",
                    fix="for a recipe, set task.control and data.controls in place of --control and --output",
                )
            report, sheet = prepare_controls(
                recipe,
                batch_size=batch_size,
                num_workers=num_workers,
                device=device,
                prune=prune,
                progress=progress,
                world=world,
            )
    if not world.is_first:
        return
    for line in report.problems():
        typer.echo(line, err=True)
    if as_json:
        print_json({**asdict(report), "sheet": str(sheet)})
        return
    typer.echo(
        f"{report.total} pictures: {report.built} extracted, {report.reused} reused, {len(report.bad)} bad"
    )
    typer.echo(f"look at {sheet}")


def _is_folder(source: str) -> bool:
    path = Path(source).expanduser()
    if is_file(path / "recipe.yaml"):  # a run, whose data are meant
        return False
    return path.is_dir() or (path.is_file() and path.suffix not in (".yaml", ".yml"))

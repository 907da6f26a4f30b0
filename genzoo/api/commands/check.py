"""`genzoo prepare check`."""

from __future__ import annotations

from typing import Annotated

import typer

from genzoo.api.commands.arguments import AsJson, Workers
from genzoo.api.commands.terminal import load_torch, print_json
from genzoo.api.recipes.listing import require_data
from genzoo.core.progress import Progress


def prepare_check_command(
    data: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|TABLE|RECIPE",
            help="pictures, clips, a table of captions, or the data of a recipe",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="of the recipe; for a folder, of its data: name=video_folder num_frames=16",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="other data, such as those held out: what occurs in both is named")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="look at so many items, at even steps")] = None,
    num_workers: Workers = 0,
    sheet: Annotated[
        str | None, typer.Option(metavar="PNG", help="draw some of the data as training would see them")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at all data before a run: classes, sizes, unreadable files (exit code 4), duplicates, captions."""
    for source in (data, against):
        if source is not None:
            require_data(source)
    load_torch()
    from genzoo.api.preparation.check import check_data, report_lines
    from genzoo.api.preparation.data_sheet import require_sheet, save_data_sheet
    from genzoo.api.preparation.open_data import open_data

    if sheet is not None:
        require_sheet(sheet)

    opened = open_data(data, overrides or [])
    other = None if against is None else open_data(against)
    with Progress() as bars:
        report = check_data(opened, against=other, limit=limit, num_workers=num_workers, progress=bars.of)
    drawn = None if sheet is None else save_data_sheet(opened.dataset, sheet)
    if as_json:
        print_json(report.as_dict())
    else:
        typer.echo("\n".join(report_lines(report)))
    if sheet is not None and not as_json:
        typer.echo(f"look at {drawn}")
    if report.bad:
        raise typer.Exit(4)

"""The `compare` command: results of runs, folders and files side by side."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from genzoo.api.commands.arguments import AsJson
from genzoo.api.commands.terminal import print_json
from genzoo.core.claims import claim_folder
from genzoo.core.errors import UsageError
from genzoo.core.files import write_file
from genzoo.core.reading import read_record

PAGE, DATA = "comparison.html", "comparison.json"


def compare_command(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="runs, folders of samples, or results of genzoo evaluate"),
    ],
    protocol: Annotated[str | None, typer.Option(help="only results of this protocol")] = None,
    reach: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=VALUE", help="epochs until a run's logged evaluations reach a value"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="folder for one HTML page, the JSON, and plots as SVG and PNG"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set results side by side: intervals, what differs for certain, and every difference in protocol."""
    from genzoo.api.evaluation.compare_runs import compare_runs, grids_of, plots_of
    from genzoo.evaluation.comparison.page import build_page
    from genzoo.evaluation.comparison.text import comparison_text

    if output is not None:
        claim_folder(output, what="a comparison", is_ours=is_comparison)
    found = compare_runs(sources, protocol=protocol, reach=_values(reach or []))
    reached = {name: {run: str(when) for run, when in each.items()} for name, each in found.reached.items()}
    notes = list(found.notes)
    if output is not None:
        plots, missing = plots_of(found)
        notes += missing
        page = build_page(found.tables, plots=plots, grids=grids_of(found.rows), reached=reached, notes=notes)
        for plot in plots:
            for kind, content in (("svg", plot.svg), ("png", plot.png)):
                write_file(output / f"{_file_name(plot.name)}.{kind}", content)
        write_file(output / DATA, json.dumps(found.to_data(), indent=2, default=str) + "\n")
        typer.echo(f"page: {write_file(output / PAGE, page)}", err=True)
    for note in notes:
        typer.echo(note, err=True)
    if as_json:
        print_json(json.loads(json.dumps(found.to_data(), default=str)))
        return
    lines = [f"{name}: {run} {epochs}" for name, each in reached.items() for run, epochs in each.items()]
    typer.echo("\n".join([comparison_text(found.tables), *lines]).strip())


def is_comparison(folder: Path) -> bool:
    """Whether a folder holds a comparison, which another one may replace."""
    return "genzoo_comparison" in read_record(folder / DATA)


def _values(texts: list[str]) -> dict[str, float]:
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise UsageError(
                f"--reach {text!r} is not METRIC=VALUE", fix="for example --reach lite0_kid=0.01"
            ) from None
    return found


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)

"""The `plot` command: losses and metrics of runs as pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from genzoo.api.commands import completion
from genzoo.api.commands.arguments import AsJson, require_run
from genzoo.api.commands.terminal import print_json
from genzoo.core.claims import claim_folder
from genzoo.core.errors import DataError, UsageError
from genzoo.core.files import write_file
from genzoo.core.optional import require
from genzoo.core.reading import read_record

INDEX = "plots.json"


def plot_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="folders of runs, drawn together", autocompletion=completion.runs
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="folder for the PNG files; RUN/plots of a single run when left out"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw losses, held-out losses and evaluations of runs against steps, samples and seconds, as PNG."""
    for run in runs:
        require_run(run)
    require("matplotlib.figure", extra="plots")
    folder = claim_folder(output or _own_folder(runs), what="plots", is_ours=is_plots)
    from genzoo.evaluation.comparison.curves import read_curves
    from genzoo.evaluation.comparison.plots import curve_plots

    curves = [curve for run in runs for curve in read_curves(_label(run), Path(run, "metrics.jsonl"))]
    plots = curve_plots(curves)
    if not plots:
        raise DataError(
            f"{' and '.join(runs)}: nothing to draw",
            why="a curve needs two logged steps at least",
            fix="train on, or lower train.log_every",
        )
    files = {plot.name: str(write_file(folder / _file_name(plot.name), plot.png)) for plot in plots}
    write_file(folder / INDEX, json.dumps({"genzoo_plots": 1, "files": sorted(files)}) + "\n")
    if as_json:
        print_json(files)
        return
    typer.echo("\n".join(files.values()))


def is_plots(folder: Path) -> bool:
    """Whether a folder holds plots, which others may replace."""
    return "genzoo_plots" in read_record(folder / INDEX)


def _own_folder(runs: list[str]) -> Path:
    if len(runs) > 1:
        raise UsageError("plots of several runs need a folder", fix="name it: --output plots")
    return Path(runs[0], "plots")


def _label(run: str) -> str:
    """How a run is called in a legend: its path, which tells runs of one name apart."""
    return run.rstrip("/").removeprefix("runs/")


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name) + ".png"

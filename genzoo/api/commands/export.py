"""The `export` command: a run made one file, or what other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genzoo.api.commands.arguments import AsJson, Overwrite, RunArgument, require_run
from genzoo.api.commands.terminal import load_torch, print_json, written
from genzoo.core.errors import UsageError

if TYPE_CHECKING:
    from genzoo.api.run import Run


def export_command(
    run: RunArgument,
    output: Annotated[str, typer.Argument(help="a new safetensors file, or a folder for layouts of several")],
    layout: Annotated[
        str | None,
        typer.Option(
            "--to", help="another project's layout, diffusers, or graphs: onnx, exported, torchscript"
        ),
    ] = None,
    client: Annotated[
        str | None, typer.Option("--for", help="a program that shall use it, such as comfyui or a1111")
    ] = None,
    weights: Annotated[str | None, typer.Option(metavar="ema|raw")] = None,
    half: Annotated[bool, typer.Option("--half", help="store 16-bit numbers")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a run's weights as one safetensors file, which `sample` and `evaluate` take like a run."""
    require_run(run)
    if client is not None and (layout is not None or half or overwrite):
        raise UsageError("--for chooses the layout itself", fix="leave --to, --half and --overwrite out")
    load_torch()
    from genzoo.api.run import load_run

    opened = load_run(run)
    if client is not None:
        _export_for(opened, output, client, weights, as_json)
        return
    path = _export(opened, output, layout=layout, weights=weights, half=half, overwrite=overwrite)
    if as_json:
        print_json(written(path))
        return
    if path.is_dir():
        typer.echo(f"{path}: {', '.join(sorted(file.name for file in path.iterdir()))}")
        return
    typer.echo(f"{path}: {path.stat().st_size:,} bytes")


def _export_for(run: Run, output: str, client: str, weights: Any, as_json: bool) -> None:
    from genzoo.api.runs.conversion import export_for

    folder, lines = export_for(run, output, client=client, weights=weights)
    if as_json:
        print_json({**written(folder), "how": lines})
        return
    typer.echo("\n".join([f"written: {folder}", *lines]))


def _export(run: Run, output: str, *, layout: str | None, weights: Any, half: bool, overwrite: bool) -> Path:
    from genzoo.api.pipelines.files import has_pipeline
    from genzoo.api.runs.conversion import export

    if layout == "diffusers" and has_pipeline(run):
        from genzoo.api.pipelines.write import export_pipeline

        return export_pipeline(run, output, weights=weights, half=half)
    return export(run, output, layout=layout, weights=weights, half=half, overwrite=overwrite)

"""`genzoo merge-concepts`: the arguments of `merge_concepts` as options, its report on the terminal."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def merge_command(
    concepts: Annotated[list[str], typer.Argument(metavar="CONCEPT...", help="files or folders, any layout")],
    base: Annotated[str, typer.Option(help="folder in diffusers' layout, or a hub id")],
    output: Annotated[
        str, typer.Option("--output", "-o", help="a new folder, or a file that ends in .safetensors")
    ],
    phrase: Annotated[
        list[str] | None,
        typer.Option(help='one per concept, in order: "<new1> cat"; a + between several of one concept'),
    ] = None,
    captions: Annotated[str | None, typer.Option(help="file of captions to regularise with")] = None,
    num_captions: Annotated[int | None, typer.Option(min=1, help="how many of them; 1000 built in")] = None,
    rename: Annotated[bool, typer.Option("--rename", help="new names for tokens that clash")] = False,
    conflicts: Annotated[
        str, typer.Option(metavar="mean|first|error", help="when two concepts claim one word")
    ] = "mean",
    include_bos: Annotated[bool, typer.Option("--include-bos", help="also hold the first row")] = False,
    any_base: Annotated[
        bool, typer.Option("--any-base", help="accept concepts trained from another base")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Merge concepts of one base model in closed form, with a report on each."""
    from genzoo.families.custom_diffusion.merging import merge_concepts

    merged = merge_concepts(
        concepts,
        base=base,
        output=output,
        phrases=[[part.strip() for part in text.split("+")] for text in phrase] if phrase else None,
        captions=captions,
        num_captions=num_captions,
        rename=rename,
        conflicts=conflicts,
        include_bos=include_bos,
        any_base=any_base,
    )
    if as_json:
        typer.echo(json.dumps(merged.report.to_dict(), indent=2))
        return
    typer.echo("\n".join(merged.report.lines()))
    typer.echo(f"written: {merged.path}")

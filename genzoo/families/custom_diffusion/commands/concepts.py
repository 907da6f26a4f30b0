"""`genzoo merge-concepts`: the arguments of `merge_concepts` as options, its report on the terminal."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from genzoo.core.errors import WeightsError
from genzoo.core.paths import require_path
from genzoo.core.progress import doing


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
    include_padding: Annotated[
        bool, typer.Option("--include-padding", help="also hold the rows after the captions' ends")
    ] = False,
    any_base: Annotated[
        bool, typer.Option("--any-base", help="accept concepts trained from another base")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Merge concepts of one base model in closed form, with a report on each."""
    for concept in concepts:
        require_concept(concept)
    with doing("loading torch"):
        from genzoo.families.custom_diffusion.merge.concepts import merge_concepts

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
        include_padding=include_padding,
        any_base=any_base,
    )
    if as_json:
        typer.echo(json.dumps(merged.report.to_dict(), indent=2))
        return
    typer.echo("\n".join(merged.report.lines()))
    typer.echo(f"written: {merged.path}")


def convert_command(
    concept: Annotated[str, typer.Argument(help="file or folder of a concept, any layout")],
    output: Annotated[
        str, typer.Option("--output", "-o", help="a new file (genzoo, official, compvis) or folder")
    ],
    to: Annotated[str, typer.Option(help="genzoo, official, compvis, diffusers, lora or kohya")] = "genzoo",
    base: Annotated[
        str | None, typer.Option(help="the base model; needed for lora, kohya and compressed concepts")
    ] = None,
    compress: Annotated[
        float | None, typer.Option(min=0, max=1, help="keep this share of the singular values, such as 0.6")
    ] = None,
    energy: Annotated[bool, typer.Option("--energy", help="the share is of their squares")] = False,
    half: Annotated[bool, typer.Option("--half", help="store 16-bit numbers (genzoo only)")] = False,
) -> None:
    """Write a concept in another layout, or compress it."""
    require_concept(concept)
    with doing("loading torch"):
        import torch

    from genzoo.core.errors import UsageError
    from genzoo.families.custom_diffusion.files.base_weights import BaseWeights, fingerprint
    from genzoo.families.custom_diffusion.files.read_layouts import read_concept
    from genzoo.families.custom_diffusion.files.write_layouts import write_concept
    from genzoo.families.custom_diffusion.merge.inputs import check_concept

    delta, weights = read_concept(concept), BaseWeights(base) if base else None
    if weights is not None:
        check_concept(delta, weights, concept, fingerprint(weights))
    if compress is not None:
        if weights is None:
            raise UsageError("compression stores differences to the base", fix="give --base")
        delta = delta.compressed(weights, keep=compress, measure="energy" if energy else "sum")
    with doing(f"writing {output}"):
        path = write_concept(delta, output, layout=to, base=weights, dtype=torch.float16 if half else None)
    files = [path] if path.is_file() else sorted(path.iterdir())
    typer.echo(f"written: {path}, {sum(file.stat().st_size for file in files):,} bytes")


def require_concept(path: str) -> None:
    """Raise WeightsError when nothing is there, before anything heavy is imported."""
    require_path(path, "a concept", fix="name its file, or the folder of its training", error=WeightsError)

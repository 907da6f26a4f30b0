"""`genzoo edit-concepts`: the arguments of `edit_concepts` as options, its report on the terminal."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from genzoo.core.errors import DataError
from genzoo.core.limits import MAX_SAMPLES
from genzoo.core.paths import require_path
from genzoo.core.progress import doing


def edit_command(
    edits: Annotated[str, typer.Argument(metavar="EDITS", help="a JSON file: a list of edits")],
    base: Annotated[str, typer.Option(help="folder in diffusers' layout, or a hub id")],
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="a new folder, a base again, or a file ending in .safetensors"),
    ],
    form: Annotated[
        str, typer.Option(metavar="ridge|constraint", help="near the targets, or on them")
    ] = "ridge",
    rows: Annotated[
        str, typer.Option(metavar="tail|last|all", help="of a text: its last word to the end, that word, all")
    ] = "tail",
    lamb: Annotated[float, typer.Option(min=0, help="weight of the change itself")] = 0.5,
    share: Annotated[float, typer.Option(help="weight of the edits as a share of all that is kept")] = 1.0,
    weight: Annotated[
        float | None, typer.Option(help="in place of --share: of each edited row, as the published codes do")
    ] = None,
    captions: Annotated[str | None, typer.Option(help="file of captions that stay")] = None,
    num_captions: Annotated[
        int | None,
        typer.Option(min=1, help="how many of them; of those built in, names and sentences, 300"),
    ] = None,
    expand: Annotated[
        str | None, typer.Option(metavar="object|art", help="edit in five templates too")
    ] = None,
    clip: Annotated[str | None, typer.Option(help="for debias: an open_clip model or folder")] = None,
    clip_weights: Annotated[str | None, typer.Option(help="the file of its weights")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="of debias, at most")] = 30,
    pictures: Annotated[
        int,
        typer.Option(
            min=0, max=MAX_SAMPLES, help="draw so many of each text, to see how far others move along"
        ),
    ] = 0,
    other: Annotated[list[str] | None, typer.Option(help="with --pictures: texts to watch; repeat")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Change what words mean to a base model, in closed form; no safety measure (see the documentation)."""
    require_path(edits, "a file of edits", fix="write one, as the documentation shows", error=DataError)
    with doing("loading torch"):
        from genzoo.families.custom_diffusion.edit.concepts import edit_concepts
        from genzoo.families.custom_diffusion.edit.debias import clip_classifier

    edited = edit_concepts(
        edits,
        base=base,
        output=output,
        form=form,
        rows=rows,
        lamb=lamb,
        share=share if weight is None else None,
        weight=1.0 if weight is None else weight,
        captions=captions,
        num_captions=num_captions,
        expand=expand,
        classifier=clip_classifier(clip, clip_weights) if clip else None,
        rounds=rounds,
        pictures=pictures,
        others=other or (),
    )
    if as_json:
        typer.echo(json.dumps(edited.report.to_dict(), indent=2))
        return
    typer.echo("\n".join(edited.report.lines()))
    typer.echo(f"written: {edited.path}")

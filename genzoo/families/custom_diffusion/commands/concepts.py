"""`genzoo merge-concepts`: the arguments of `merge_concepts` as options, its report on the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.paths import require_path
from genzoo.core.progress import doing
from genzoo.pretrained.hub_runs import here, is_hub_run


def merge_command(
    concepts: Annotated[
        list[str],
        typer.Argument(
            metavar="CONCEPT...", help="files or folders, any layout, LoRA too; cat.safetensors:0.8"
        ),
    ],
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
    form: Annotated[
        str,
        typer.Option(metavar="constraint|ridge", help="the paper's, exact; or near, for narrow text"),
    ] = "constraint",
    share: Annotated[
        float, typer.Option(help="of a ridge: the concepts' weight as a share of all that is kept")
    ] = 1.0,
    any_base: Annotated[
        bool, typer.Option("--any-base", help="accept concepts trained from another base")
    ] = False,
    method: Annotated[
        str | None, typer.Option(metavar="least_squares|average|sum", help="of LoRA files alone")
    ] = None,
    as_base: Annotated[
        bool, typer.Option("--as-base", help="of LoRA files: write the base with the merge in its weights")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Merge concepts of one base model in closed form, or LoRA files by least squares, with a report."""
    pairs = [_with_strength(text) for text in concepts]
    paths, strengths = [path for path, _ in pairs], [strength for _, strength in pairs]
    for path in paths:
        require_concept(path)
    with doing("loading torch"):
        from genzoo.families.custom_diffusion.lora.merge import merge_loras, only_loras
        from genzoo.families.custom_diffusion.merge.concepts import merge_concepts

    local = [str(here(path)) for path in paths]
    phrases = [[part.strip() for part in text.split("+")] for text in phrase] if phrase else None
    if only_loras(local):
        merged_loras = merge_loras(
            local,
            base=base,
            prompts=phrases,
            strengths=strengths,
            method=method or "least_squares",
            output=output,
            as_base=as_base,
        )
        _tell(merged_loras.report, merged_loras.path, as_json)
        return
    if method is not None or as_base:
        raise UsageError(
            f"{'--as-base' if method is None else '--method'} is of LoRA files",
            fix="concepts are merged in closed form alone, into a concept",
        )
    merged = merge_concepts(
        paths,
        base=base,
        output=output,
        phrases=phrases,
        strengths=strengths,
        captions=captions,
        num_captions=num_captions,
        rename=rename,
        conflicts=conflicts,
        include_bos=include_bos,
        include_padding=include_padding,
        form=form,
        share=share,
        any_base=any_base,
    )
    _tell(merged.report, merged.path, as_json)


def _tell(report: Any, path: Path | None, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
        return
    typer.echo("\n".join(report.lines()))
    typer.echo(f"written: {path}")


def _with_strength(text: str) -> tuple[str, float]:
    """cat.safetensors:0.8 -> the path and its strength; 1 where there is none, or a file of the whole
    name.
    """
    path, colon, number = text.rpartition(":")
    if not colon or Path(text).exists():
        return text, 1.0
    try:
        return path, float(number)
    except ValueError:
        return text, 1.0


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
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
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
    if as_json:
        sizes = {file.name: file.stat().st_size for file in files}
        typer.echo(json.dumps({"path": str(path), "files": sizes, "words": list(delta.tokens)}, indent=2))
        return
    typer.echo(f"written: {path}, {sum(file.stat().st_size for file in files):,} bytes")
    typer.echo(f"words: {', '.join(delta.tokens) or 'none, the concept has no word of its own'}")


def require_concept(path: str) -> None:
    """Raise WeightsError when nothing is there, before anything heavy is imported."""
    if not is_hub_run(path):
        require_path(
            path, "a concept", fix="name its file, or the folder of its training", error=WeightsError
        )

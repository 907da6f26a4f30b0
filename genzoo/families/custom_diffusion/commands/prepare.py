"""`genzoo prepare regularization`: pictures that keep a class as it was, in the official folder layout."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from genzoo.core.errors import DataError, UsageError
from genzoo.core.limits import MAX_AT_ONCE, MAX_SAMPLES
from genzoo.core.paths import require_path
from genzoo.core.processes import chosen_device
from genzoo.core.progress import Progress, doing
from genzoo.core.wording import counted


def regularization_command(
    class_name: Annotated[str, typer.Argument(metavar="CLASS", help='what the pictures show, such as "cat"')],
    output: Annotated[str, typer.Option("--output", "-o", help="a new folder, for class_data_dir")],
    num: Annotated[int, typer.Option(min=1, max=MAX_SAMPLES, help="how many pictures")] = 200,
    folder: Annotated[str | None, typer.Option(help="take those of this folder")] = None,
    base: Annotated[
        str | None, typer.Option(help="let this model paint them: a folder in diffusers' layout, or a hub id")
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="look for them in a table or folder of captioned pictures")
    ] = None,
    clip: Annotated[
        str,
        typer.Option(help="with --collection: an open_clip model, or a folder with its config and weights"),
    ] = "ViT-L-14",
    clip_weights: Annotated[str | None, typer.Option(help="the file of that model's weights")] = None,
    threshold: Annotated[float, typer.Option(help="least similarity of a caption")] = 0.85,
    relax: Annotated[bool, typer.Option("--relax", help="take less similar ones where few are left")] = False,
    held_out: Annotated[
        int, typer.Option(min=0, max=MAX_SAMPLES, help="further pictures, to measure with")
    ] = 0,
    min_size: Annotated[int, typer.Option(min=1, help="least width and height")] = 256,
    cache: Annotated[str | None, typer.Option(help="folder that keeps the captions' features")] = None,
    prompt: Annotated[str, typer.Option(help="with --base: {} stands for the class")] = "photo of a {}",
    steps: Annotated[int, typer.Option(min=1, help="with --base: sampler steps")] = 50,
    seed: Annotated[int, typer.Option(help="with --base")] = 0,
    batch_size: Annotated[
        int, typer.Option(min=1, max=MAX_AT_ONCE, help="with --base: pictures at once")
    ] = 4,
    device: Annotated[
        str | None, typer.Option(help="such as cpu or cuda; the accelerator when left out")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Regularisation pictures from a folder, painted by the base, or found in a collection."""
    if sum(source is not None for source in (folder, base, collection)) != 1:
        raise UsageError("where should the pictures come from?", fix="one of --folder, --base, --collection")
    given = folder or collection
    if given is not None:
        require_path(given, "a folder or file of pictures", fix="check the path", error=DataError)
    with doing("loading torch"):
        from genzoo.families.custom_diffusion.data import regularization

    place = chosen_device(device)
    if folder is not None:
        path = regularization.from_folder(folder, output, class_name=class_name, num=num)
    elif base is not None:
        with Progress() as progress:
            path = regularization.generated(
                base,
                output,
                class_name=class_name,
                num=num,
                prompt=prompt,
                seed=seed,
                batch_size=batch_size,
                device=place,
                sampler={"steps": steps},
                progress=progress.of("painting"),
            )
    else:
        from genzoo.pretrained.clip import load_clip

        assert collection is not None
        path = regularization.retrieved(
            collection,
            output,
            class_name=class_name,
            encoder=load_clip(clip, weights=clip_weights, device=place),
            num=num,
            held_out=held_out,
            threshold=threshold,
            relax=relax,
            min_size=min_size,
            cache=cache,
        )
    if as_json:
        typer.echo(json.dumps({"path": str(path), "pictures": num}, indent=2))
        return
    typer.echo(f"{path}: {counted(num, 'picture')}")

"""`genzoo teach "my cat" PHOTOS --base BASE`: a concept from photographs in one line."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from genzoo.core.limits import MAX_SAMPLES
from genzoo.core.paths import require_path
from genzoo.core.processes import chosen_device
from genzoo.core.progress import Progress, doing


def teach_command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help='what it is called: "my cat"')],
    photos: Annotated[str, typer.Argument(help="folder with three or more photographs of it")],
    base: Annotated[str, typer.Option(help="folder in diffusers' layout, or a hub id")],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="new folder for the recipe; taught/NAME when left out"),
    ] = None,
    class_word: Annotated[
        str | None, typer.Option(help="what kind of thing it is; read from the name when left out")
    ] = None,
    class_pictures: Annotated[
        str | None, typer.Option(help="folder of others of its kind; the base paints them when left out")
    ] = None,
    num_class: Annotated[
        int,
        typer.Option(min=0, max=MAX_SAMPLES, help="how many the base paints; 0 trains without, half as long"),
    ] = 100,
    steps: Annotated[int | None, typer.Option(min=1, help="of training; 250, or 125 without others")] = None,
    seed: Annotated[int, typer.Option(help="of what the base paints")] = 0,
    word: Annotated[str, typer.Option(help="that stands for it in prompts")] = "<new1>",
    run: Annotated[str | None, typer.Option(help="folder of the run; runs/NAME when left out")] = None,
    train: Annotated[bool, typer.Option("--train/--no-train", help="or write the recipe alone")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Teach a base a concept from photographs: choose words and steps, keep the recipe, train, export."""
    require_path(photos, "a folder of photographs", fix="name the folder")
    with doing("loading torch"):
        from genzoo.families.custom_diffusion.data.regularization import generated
        from genzoo.families.custom_diffusion.teach import plan_lesson, write_lesson

    lesson = plan_lesson(name, photos, base, class_word=class_word, word=word)
    folder, device = output or f"taught/{lesson.name}", chosen_device(None)
    for note in lesson.photographs.notes:
        typer.echo(f"note: {note}", err=as_json)
    typer.echo(f"{len(lesson.photographs.paths)} photographs, called {lesson.prompt!r}", err=as_json)
    others = class_pictures
    painted = f"{folder}-class" if others is None and num_class else None
    recipe = write_lesson(lesson, folder, base, class_pictures=others or painted, steps=steps, device=device)
    typer.echo(f"written: {recipe.parent}: recipe.yaml, concepts.json, photographs.png", err=as_json)
    if painted is not None:
        with Progress() as progress:
            generated(
                base,
                painted,
                class_name=lesson.class_word,
                num=num_class,
                seed=seed,
                device=device,
                progress=progress.of(f"painting {lesson.class_word}"),
            )
    place = Path(run or f"runs/{lesson.name}")
    if train:
        _train(context, recipe, None if run is None else place, to_stderr=as_json)
    if as_json:
        told = {"recipe": str(recipe), "photographs": len(lesson.photographs.paths), "prompt": lesson.prompt}
        typer.echo(json.dumps(told | (_written(place) if train else {}), indent=2))
    elif train:
        typer.echo("\n".join(_next_steps(place, lesson.prompt)))


def _train(context: typer.Context, recipe: Path, run: Path | None, *, to_stderr: bool) -> None:
    """Train in this process: the command line we are in knows how.   to_stderr: also what it would print."""
    root = context.find_root()
    command = root.command.get_command(root, "train")  # type: ignore[attr-defined]
    place = [] if run is None else ["--output", str(run)]
    with contextlib.redirect_stdout(sys.stderr if to_stderr else sys.stdout):
        command.main([str(recipe), *place], prog_name="genzoo train", standalone_mode=False)


def _written(run: Path) -> dict[str, str]:
    """Where a training put what was learnt."""
    return {"run": str(run), "concept": f"{run}/concept.safetensors", "clients": f"{run}/clients"}


def _next_steps(run: Path, prompt: str) -> list[str]:
    """Where what was learnt is, and what to do with it."""
    return [
        f"concept: {run}/concept.safetensors; for other programs: {run}/clients, see clients.txt there",
        f"try it: genzoo sample {shlex.quote(str(run))} --prompt {shlex.quote(prompt)}",
    ]

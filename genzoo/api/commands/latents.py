"""`genzoo prepare latents`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from genzoo.api.commands.arguments import AsJson, AtOnce, Device, Overrides, Prune, RecipeOrRun, Workers
from genzoo.api.commands.terminal import load_torch, print_json
from genzoo.core.processes import connected
from genzoo.core.progress import Progress
from genzoo.core.wording import counted

if TYPE_CHECKING:
    from genzoo.core.recipe import Recipe


def prepare_latents_command(
    recipe: RecipeOrRun,
    overrides: Overrides = None,
    batch_size: AtOnce = 32,
    num_workers: Workers = 0,
    device: Device = None,
    prune: Prune = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="read every picture and every entry, and write nothing")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Encode a recipe's images into data.latent_cache; later calls redo what changed."""
    from genzoo.api.recipes.named import recipe_named

    loaded = recipe_named(recipe, overrides or [])
    load_torch()
    from genzoo.api.preparation.latents import prepare_latents

    if verify:
        raise typer.Exit(0 if _verified(loaded, num_workers, as_json) else 4)
    with connected() as world, Progress() as progress:
        report = prepare_latents(
            loaded,
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
            prune=prune,
            progress=progress.of("encoding"),
            world=world,
        )
    if not world.is_first:
        return
    for line in report.problems():
        typer.echo(line, err=True)
    if as_json:
        print_json(asdict(report))
        return
    typer.echo(
        f"{counted(report.total, 'picture')}: {report.built} encoded, {report.reused} reused,"
        f" {len(report.bad)} bad; {report.unused} old entries{f', {report.pruned} removed' if prune else ''}"
    )


def _verified(recipe: Recipe, num_workers: int, as_json: bool) -> bool:
    """Whether every picture has its latents; what is wrong is printed."""
    from genzoo.api.preparation.latents import check_latents

    with Progress() as progress:
        check = check_latents(recipe, num_workers=num_workers, progress=progress.of("checking"))
    if as_json:
        print_json({**asdict(check), "is_whole": check.is_whole})
    else:
        typer.echo("\n".join([*check.problems(), f"{counted(check.total, 'picture')}: {check.summary()}"]))
    return check.is_whole

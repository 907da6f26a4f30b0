"""`genzoo prepare latent-statistics`."""

from __future__ import annotations

from typing import Annotated

import typer

from genzoo.api.commands.arguments import AsJson, AtOnce, Device, Overwrite, RecipeOrRun
from genzoo.api.commands.terminal import load_torch, print_json
from genzoo.core.claims import claim_file
from genzoo.core.files import write_json
from genzoo.core.progress import Progress


def latent_statistics_command(
    recipe: RecipeOrRun,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="JSON file")] = "latent_statistics.json",
    num: Annotated[int, typer.Option(min=1, help="pictures to measure")] = 10_000,
    seed: Annotated[int, typer.Option(help="of the choice of pictures and of what is drawn")] = 0,
    batch_size: AtOnce = 32,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure mean and deviation of each channel of a recipe's latents, for codec.statistics=FILE."""
    from genzoo.api.recipes.named import recipe_named

    loaded = recipe_named(recipe, overrides or [])
    claim_file(output, overwrite=overwrite)
    load_torch()
    from genzoo.api.preparation.latent_statistics import measure_latents

    with Progress() as progress:
        found = measure_latents(
            loaded,
            num=num,
            seed=seed,
            batch_size=batch_size,
            device=device,
            progress=progress.of("measuring latents"),
        )
    path = write_json(output, found.content())
    if as_json:
        print_json({"path": str(path), **found.content()})
        return
    typer.echo(
        f"{path}: {len(found.mean)} channels of {found.pictures} pictures; on {found.checked} others,"
        f" normalised, means within {found.worst_mean:.3f} of 0, deviations within {found.worst_std:.3f} of 1"
    )
    if not found.holds:
        typer.echo("other pictures do not come out normalised: measure more of them with --num", err=True)
    typer.echo(f"train with codec.statistics={path}")

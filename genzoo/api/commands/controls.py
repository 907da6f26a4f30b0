"""`genzoo prepare controls`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from genzoo.api.commands import completion
from genzoo.api.commands.arguments import AsJson, AtOnce, Device, Prune, Workers, require_run, settings_from
from genzoo.api.commands.terminal import load_torch, print_json
from genzoo.core.errors import UsageError
from genzoo.core.processes import connected
from genzoo.core.progress import Progress
from genzoo.core.recipe_source import is_file
from genzoo.core.wording import counted

if TYPE_CHECKING:
    from genzoo.api.preparation.control_folder import ControlsWanted
    from genzoo.core.recipe import Recipe

NOT_BOTH = "leave one of both out; sampling takes only controls of the run's own extractor"


def prepare_controls_command(
    source: Annotated[str, typer.Argument(metavar="RECIPE|RUN|FOLDER|PICTURE", help="whose pictures")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="of the recipe; for a folder, the extractor's settings"
        ),
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="extractor for a folder: see `genzoo list controls`")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="folder for the PNG files")] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="for a folder: the extractor and the size that this run knows",
            autocompletion=completion.runs,
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS",
            help="for a folder: crop each picture to this square first, or to [HEIGHT,WIDTH]; its own size"
            " when left out",
        ),
    ] = None,
    batch_size: AtOnce = 32,
    num_workers: Workers = 0,
    device: Device = None,
    prune: Prune = False,
    as_json: AsJson = False,
) -> None:
    """Extract the controls of a recipe's pictures into data.controls, or of a folder as PNG files; once."""
    for_folder = FolderOptions(control, output, like, image_size, overrides or [])
    # names and options first: a mistake is answered before anything heavy is imported
    is_folder = _is_folder(source)
    recipe = None if is_folder else _recipe(source, for_folder)
    if is_folder:
        for_folder.check(source)
    load_torch()
    from genzoo.api.preparation.control_folder import extract_folder
    from genzoo.api.preparation.controls import prepare_controls

    with connected() as world, Progress() as bars:
        together: dict[str, Any] = {"device": device, "progress": bars.of("extracting"), "world": world}
        if recipe is None:
            report, sheet = extract_folder(source, str(output), for_folder.wanted(), **together)
        else:
            report, sheet = prepare_controls(
                recipe, batch_size=batch_size, num_workers=num_workers, prune=prune, **together
            )
    if not world.is_first:
        return
    for line in report.problems():
        typer.echo(line, err=True)
    if as_json:
        print_json({**asdict(report), "sheet": str(sheet)})
        return
    typer.echo(
        f"{counted(report.total, 'picture')}: {report.built} extracted, {report.reused} reused,"
        f" {len(report.bad)} bad"
    )
    typer.echo(f"look at {sheet}")


class FolderOptions(NamedTuple):
    """What the options say of a folder's controls; a recipe says the same in task.control and data."""

    control: str | None
    output: str | None
    like: str | None
    image_size: str | None
    settings: list[str]

    def check(self, source: str) -> None:
        """Raise UsageError where it is not clear what to extract, or where to."""
        if self.output is None or (self.control is None and self.like is None):
            raise UsageError(
                f"{source} is no recipe, so it is not clear what to extract",
                fix="name the extractor and a folder: --control canny --output edges; or --like RUN",
            )
        beside = {"--control": self.control, "--image-size": self.image_size}
        both = [name for name, value in beside.items() if value is not None] + self.settings
        if self.like is not None and both:
            raise UsageError(f"--like takes extractor and size from the run, beside {both[0]}", fix=NOT_BOTH)
        if self.like is not None:
            require_run(self.like)

    def wanted(self) -> ControlsWanted:
        """Extractor and size. Raises UsageError for an extractor, setting or size that is none."""
        from genzoo.api.preparation.control_folder import ControlsWanted, controls_like

        if self.like is not None:
            from genzoo.api.run import load_run

            return controls_like(load_run(self.like))
        section = {"name": self.control} | settings_from(self.settings)
        return ControlsWanted.of(section, _size(self.image_size))


def _size(text: str | None) -> Any:
    """A side in pixels, or [height, width]. Raises UsageError for anything else."""
    size = None if text is None else settings_from([f"size={text}"])["size"]
    parts = size if isinstance(size, list) else [size, size]
    if size is not None and not (len(parts) == 2 and all(type(part) is int for part in parts)):
        raise UsageError(f"--image-size is {text!r}", fix="write a side in pixels, or [HEIGHT,WIDTH]")
    return size


def _recipe(source: str, options: FolderOptions) -> Recipe:
    """The recipe whose pictures are meant. Raises UsageError beside options that are for folders."""
    from genzoo.api.recipes.named import recipe_named

    if any(value is not None for value in options[:4]):
        raise UsageError(
            f"{source!r} is no folder or picture that is here",
            why="and a recipe says itself what to extract, and where to",
            fix="for a recipe, set task.control and data.controls in place of options for a folder",
        )
    return recipe_named(source, options.settings)


def _is_folder(source: str) -> bool:
    path = Path(source).expanduser()
    if is_file(path / "recipe.yaml"):  # a run, whose data are meant
        return False
    return path.is_dir() or (path.is_file() and path.suffix not in (".yaml", ".yml"))

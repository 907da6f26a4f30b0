"""The command line. Heavy imports happen inside commands, so that help and listings stay quick."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
import typer.core

import genzoo.api  # noqa: F401  (reads the cards)
from genzoo.core.errors import GenzooError
from genzoo.core.registry import COMMANDS

EXIT_CODES = """Exit codes: 0 ok, 2 usage or recipe, 3 missing optional part, 4 data or weights,
5 non-finite numbers, 6 out of memory, 130/143 interrupted after a checkpoint. `--debug` anywhere shows the traceback of an error."""

app = typer.Typer(
    name="genzoo",
    help=f"A zoo of generative models: train, sample, compare.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="path of a recipe, or the name of a shipped one")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings that replace the recipe's")
]
AsJson = Annotated[bool | None, typer.Option("--json", help="print JSON")]


@app.command("list")
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="models, recipes, samplers, losses, ...; all when left out")
    ] = None,
    pattern: Annotated[str | None, typer.Argument(help='a shell pattern such as "dim*"')] = None,
    as_json: AsJson = None,
) -> None:
    """List models, recipes and every registered name."""
    from genzoo.api.listing import KINDS, describe

    kinds = [kind] if kind else list(KINDS)
    found = {kind: describe(kind, pattern or "*") for kind in kinds}
    if as_json:
        _print_json({kind: dict(entries) for kind, entries in found.items()})
        return
    for name, entries in found.items():
        if entries:
            typer.echo(f"{name}:" if len(found) > 1 else "", nl=len(found) > 1)
            width = max(len(entry) for entry, _ in entries)
            typer.echo("\n".join(f"  {entry:<{width}}  {text}".rstrip() for entry, text in entries))


@app.command()
def show(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    plain: Annotated[bool, typer.Option("--plain", help="without the origin of each value")] = False,
) -> None:
    """Print a recipe with every include expanded, and where each value comes from."""
    from genzoo.api.show import annotated, find

    found = find(recipe, overrides or [])
    typer.echo(found.to_yaml().rstrip() if plain else annotated(found))


@app.command()
def validate(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE... [KEY=VALUE]...")],
) -> None:
    """Check recipes against the code they name; every problem is listed at once."""
    from genzoo.api.schema import check_recipe
    from genzoo.core.recipe import load_recipe

    overrides = [text for text in recipes if "=" in text]
    for name in [text for text in recipes if "=" not in text]:
        missing = check_recipe(load_recipe(name, overrides))
        typer.echo(f"{name}: ok" + (f"; you have to give {', '.join(missing)}" if missing else ""))


def main(argv: list[str] | None = None) -> None:
    """Run the command line: errors that a user can mend take a few lines, and the exit code says which kind."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        app([text for text in arguments if text != "--debug"], prog_name="genzoo")
    except Exception as error:
        if debug:
            raise
        sys.exit(_report(error))


def _report(error: Exception) -> int:
    """Print an error without traceback; returns the exit code."""
    if isinstance(error, GenzooError):
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, MemoryError) or "OutOfMemoryError" in type(error).__name__:
        typer.echo(f"error: out of memory: {text}\n  fix:   a smaller batch_size or block_size", err=True)
        return 6
    if isinstance(error, ImportError):
        typer.echo(f"error: a package is missing: {text}", err=True)
        return 3
    if isinstance(error, OSError):
        typer.echo(f"error: {text}", err=True)
        return 4
    typer.echo(
        f"error: {type(error).__name__}: {text}\n  fix:   --debug shows where; this is a bug", err=True
    )
    return 1


def _print_json(data: Any) -> None:
    import json

    typer.echo(json.dumps(data, indent=2))


class _LazyCommand(typer.core.TyperCommand):
    """A command of a card: only its name and help are known until it runs."""

    target = ""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name=info_name, help=self.help)(COMMANDS.get(self.target))
        return typer.main.get_command(single).make_context(info_name, args, parent=parent, **extra)


def _add_registered_commands() -> None:
    """Commands that families declare: "merge-things", or "prepare things" below a group."""
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    for name in COMMANDS:
        group, _, last = name.rpartition(" ")
        if group and group not in groups:
            groups[group] = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
            app.add_typer(groups[group], name=group, help=f"{group.capitalize()} something.")
        lazy = type("LazyCommand", (_LazyCommand,), {"target": name})
        (groups[group] or app if group else app).command(last, cls=lazy, help=COMMANDS.help(name))(_unused)


def _unused() -> None:
    raise AssertionError("a lazy command is replaced before it runs")


_add_registered_commands()

if __name__ == "__main__":
    main()

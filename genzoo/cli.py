"""The command line. Commands are names of a registry: only the one that is typed is imported."""

from __future__ import annotations

import inspect
import io
import os
import sys
from typing import Annotated, Any

import typer
import typer.core

import genzoo.api
import genzoo.app  # noqa: F401  (both read their cards)
from genzoo.api.commands.spelling import EitherSpelling
from genzoo.api.commands.terminal import log_to_terminal, report_error
from genzoo.core.errors import UsageError
from genzoo.core.plugins import load_module
from genzoo.core.registry import COMMANDS

EXIT_CODES = """Exit codes: 0 ok, 2 usage or recipe, 3 missing optional part, 4 data or weights,
5 non-finite numbers, 6 out of memory, 130/143/129 interrupted after a checkpoint.
`--debug` anywhere shows the traceback of an error. `--import MODULE` anywhere reads a module's names first:
models, tasks, data and commands of your own; installed packages declare the entry point genzoo.families."""

HELP = {"help_option_names": ["-h", "--help"]}
GROUPS = {"prepare": "Compute once what training reads again and again."}

# of recipes and runs, in the order of a first visit
OF_RECIPES = ("list", "show", "validate", "train", "count", "convert", "export", "rerun", "doctor")
FIRST = (*OF_RECIPES, "prepare latents")  # in help, where the others follow by name
OWN_SPELLING = (*OF_RECIPES, "sample")  # every KEY=VALUE is a setting there, and none an option


def main(argv: list[str] | None = None) -> None:
    """Run the command line: errors that a user can mend take a few lines; the exit code says which kind."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):  # names of files may hold bytes that are no UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _run([text for text in arguments if text != "--debug"])
    except BrokenPipeError:
        # the reader went away (`genzoo list | head`), and wants no message; nor may the exit flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if debug:
            raise
        sys.exit(report_error(error))


def _run(arguments: list[str]) -> None:
    modules, arguments = _take_imports(arguments)
    for module in modules:
        load_module(module)
    if arguments[:1] == ["list"] and len(arguments) < 4 and not any(a.startswith("-") for a in arguments):
        # shells complete names with it: typer's parser alone would take twice the time of the answer
        COMMANDS.get("list")(*arguments[1:])
        return
    log_to_terminal()
    parser()(arguments, prog_name="genzoo")


def _take_imports(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The modules of every `--import MODULE` and `--import=MODULE`, and the other arguments."""
    modules, others, rest = [], [], iter(arguments)
    for text in rest:
        option, equals, value = text.partition("=")
        if option != "--import":
            others.append(text)
            continue
        module = value if equals else next(rest, "")
        if not module:
            raise UsageError("--import needs the name of a module", fix="for example --import my_family")
        modules.append(module)
    return modules, others


def parser() -> typer.Typer:
    """Everything that can be typed: all commands that are registered now, "prepare things" below a group."""
    app = typer.Typer(
        name="genzoo",
        callback=_genzoo,
        context_settings=HELP,
        help=f"A zoo of generative models: train, sample, compare.\n\n{EXIT_CODES}",
        no_args_is_help=True,
        add_completion=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    groups = {"": app}
    for name in (*FIRST, *(name for name in COMMANDS if name not in FIRST)):
        group, _, last = name.rpartition(" ")
        if group not in groups:
            groups[group] = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
            app.add_typer(groups[group], name=group, help=GROUPS.get(group, ""))
        groups[group].command(last, cls=_lazy(name), help=COMMANDS.help(name))(_unused)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        from genzoo import __version__

        typer.echo(f"genzoo {__version__}")
        raise typer.Exit


def _genzoo(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


class _LazyCommand(typer.core.TyperCommand):
    """A command of a card: only its name and help are known until it runs."""

    target = ""
    command_class: type[typer.core.TyperCommand] = EitherSpelling

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self.opened(info_name).make_context(info_name, args, parent=parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        """In a context that `make_context` made, whose command is the one that was opened."""
        return ctx.command.invoke(ctx)

    def opened(self, name: str | None) -> Any:
        """The command itself, with its options."""
        command = COMMANDS.get(self.target)
        more = inspect.cleandoc(command.__doc__ or "").partition("\n\n")[2]
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name=name, help=f"{self.help}\n\n{more}", cls=self.command_class)(command)
        return typer.main.get_command(single)


def _lazy(name: str) -> type[_LazyCommand]:
    own = typer.core.TyperCommand if name in OWN_SPELLING else EitherSpelling
    return type("LazyCommand", (_LazyCommand,), {"target": name, "command_class": own})


def _unused() -> None:
    raise AssertionError("a lazy command is replaced before it runs")


if __name__ == "__main__":
    main()

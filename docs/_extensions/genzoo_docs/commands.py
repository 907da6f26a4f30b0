"""The page of all commands, from the parser that runs them: what `--help` says, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from genzoo.cli import HELP, parser

Command = tuple[str, Any]


def all_commands() -> list[Command]:
    """(name, command) of everything that can be typed after `genzoo`, lazy commands opened."""
    return sorted(_walk(typer.main.get_command(parser()), ()))


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[Command]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _walk(inner, (*path, name))
    else:
        yield " ".join(path), command.opened(path[-1]) if hasattr(command, "opened") else command


def context(name: str, command: Any) -> Any:
    """The context in which a command prints its own help."""
    return command.make_context(f"genzoo {name}", [], resilient_parsing=True, **HELP)


def written() -> str:
    """Every command with its arguments and options, as Markdown."""
    return "\n\n".join(_section(name, command) for name, command in all_commands())


def _section(name: str, command: Any) -> str:
    ctx = context(name, command)
    usage = " ".join([f"genzoo {name}", *command.collect_usage_pieces(ctx)])
    parts = [f"## genzoo {name}", command.help or "", f"```text\n{usage}\n```"]
    for title, kind in (("Arguments", "argument"), ("Options", "option")):
        records = [one.get_help_record(ctx) for one in command.get_params(ctx) if one.param_type_name == kind]
        shown = [record for record in records if record is not None]
        if shown:
            parts.append(f"{title}:")
            parts.append("\n".join(f"`{left}`\n: {_words(right)}\n" for left, right in shown))
    return "\n\n".join(parts)


def _words(text: str) -> str:
    """The words about an option; brackets of defaults are no links, braces and stars no markup."""
    escaped = "".join(f"\\{sign}" if sign in "[]<>*_{}" else sign for sign in " ".join(text.split()))
    return escaped or "(its name says it)"

"""Every command of the command line, with its parameters, as it reads them itself."""

from __future__ import annotations

from typing import Any

import typer

from genzoo.cli import parser


def all_commands() -> list[tuple[str, Any]]:
    """(name, click command with its parameters) of each, groups followed: "prepare latents"."""
    found = _leaves(typer.main.get_command(parser()), [])
    return [(name, command.make_context(name, [], resilient_parsing=True).command) for name, command in found]


def _leaves(command: Any, names: list[str]) -> list[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        return [(" ".join(names), command)]
    return [leaf for name, below in command.commands.items() for leaf in _leaves(below, [*names, name])]
